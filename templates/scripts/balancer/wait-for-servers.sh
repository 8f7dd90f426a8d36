#!/usr/bin/env bash
# Waits until every server passes its health check: all applications of each node serve.
# Returns servers to service that an interrupted update left drained.
# usage: wait-for-servers.sh CONFIGURATION_DIGEST
#        The digest is not used: it makes Pulumi run the script again when the configuration has changed.
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
# On a busy machine a start of Ant Media Server took 208 s.
readonly limit=280

# Prints name, state and last check of every server that does not pass its health check or tracks one that does not.
# HAProxy reports UP before the first check, so only a passed check (L7OK) counts.
list_unhealthy() {
  list_servers "$(list_workers | head -n 1)" pxname svname status check_status last_chk | awk -F '\t' '
    $3 == "no check" { next }
    $3 != "UP" || ($4 != "-" && $4 != "L7OK") { print $1 "/" $2, $3, $4, $5 }'
}

for server in $(list_drained); do
  echo "$server was left out of service"
  bash "$(dirname "$0")/return-server.sh" "$server" &
done
wait
until unhealthy=$(list_unhealthy) && [[ -z $unhealthy ]]; do
  if ((SECONDS > limit)); then
    head -n 20 <<<"$unhealthy" | fail "These servers did not pass their health checks within $limit seconds (backend/server, state, last check):"
  fi
  sleep 0.2
done
echo "All $(list_servers "$(list_workers | head -n 1)" svname status | grep -v 'no check' | cut -f 1 | sort -u | wc -l) servers pass their health checks"
