#!/usr/bin/env bash
# Puts a server back into service after drain-server.sh, and waits until it passes its health check.
# usage: return-server.sh NAME [SETUP]
#   SETUP   the argument of drain-server.sh; recorded
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
name=$1 setup=${2:-}
# On a busy machine a start of Ant Media Server took 208 s.
readonly limit=280

# Prints status and result of the last check of the server in the backend that checks it.
read_health() {
  list_servers "$worker" svname tracked status check_status last_chk | awk -F '\t' -v name="$name" '$1 == name && $2 == "-" { print $3, $4, $5 }'
}

# In maintenance HAProxy does not check a server, and afterwards it treats it as healthy. So it is set to down: it gets no
# request until it passes its health check, except for one of a sticky client that comes between the first two commands.
return_as_down() {
  local backend checked commands
  checked=$(list_servers "$worker" pxname svname tracked | awk -F '\t' -v name="$name" '$2 == name && $3 == "-" { print $1 }')
  commands=("set server $checked/$name state drain" "set server $checked/$name health down")
  for backend in $(list_backends "$worker" "$name"); do
    commands+=("set server $backend/$name state ready")
  done
  ask_haproxy "$worker" "${commands[@]}" >/dev/null
}

record_setup() { [[ -z $setup ]] || install -D -m 0600 /dev/stdin "$(in_service_file "$name")" <<<"$setup"; }

if ! worker=$(list_workers | head -n 1) || [[ -z $worker ]]; then
  record_setup
  echo "HAProxy does not run"
  exit
fi
if [[ -z $(list_backends "$worker" "$name") ]]; then
  record_setup
  echo "HAProxy has no server $name"
  exit
fi
claim_server "$name"
systemctl stop "return-server-$name.timer" 2>/dev/null || true
# The script of an update that was killed may drain the server once more before it notices.
until if grep -qxF "$name" < <(list_drained); then return_as_down; fi && health=$(read_health) && [[ $health == "UP "* ]]; do
  if ((SECONDS > limit)); then
    fail "$name did not pass its health check within $limit seconds. HAProxy puts it into service when it does. State and last check:" <<<"$health"
  fi
  sleep 0.2
done
record_setup
echo "$name is in service"
