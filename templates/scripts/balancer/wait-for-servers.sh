#!/usr/bin/env bash
# Waits until every server passes its health check.
# usage: wait-for-servers.sh CONFIGURATION_DIGEST
#        The digest is not used: it makes Pulumi run the script again when the configuration has changed.
source "$(dirname "$0")/prelude.sh"
readonly limit=180

# Prints name and state of every server that has a health check or tracks one. Fields as of "show stat" in HAProxy's management guide.
# HAProxy reports UP before the first check, so only a passed check (L7OK) counts.
list_servers() {
  socat - UNIX-CONNECT:/run/haproxy/admin.sock <<<"show stat -1 4 -1" | awk -F, '
    /^#/ || NF < 2 || $18 == "no check" { next }
    { state = $37 == "" || $37 == "L7OK" ? $18 : $37; gsub(" ", "-", state); print $1 "/" $2, state }'
}

until unhealthy=$(list_servers | awk '$2 != "UP"') && [[ -z $unhealthy ]]; do
  if ((SECONDS > limit)); then
    head -n 20 <<<"$unhealthy" | fail "These servers did not pass their health checks within $limit seconds:"
  fi
  sleep 1
done
echo "All $(list_servers | cut -d ' ' -f 1 | cut -d / -f 2 | sort -u | wc -l) servers pass their health checks"
