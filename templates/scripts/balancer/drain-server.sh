#!/usr/bin/env bash
# Takes a server out of service before it restarts or is deleted. return-server.sh puts it back.
# usage: drain-server.sh NAME SECONDS
#   SECONDS   how long its connections may last; 0: do not wait for them
# New clients go to other servers at once. The server's sticky clients follow when its connections are gone or SECONDS have
# passed; connections that are left stay open. Does nothing if no other server could take over.
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
name=$1 limit=$2
# A server that nobody puts back returns by itself after this time.
readonly seconds_until_return=3600

# Prints the backends in which no other server is up.
list_backends_without_other_servers() {
  list_servers "$1" pxname svname status | awk -F '\t' -v name="$name" '
    $2 == name { has[$1] = 1 }
    $2 != name && ($3 ~ /^UP/ || $3 == "no check") { other[$1] = 1 }
    END { for (backend in has) if (!(backend in other)) print backend }' | sort
}

set_state_in_all_workers() {
  local worker
  for worker in $(list_workers); do
    # An old worker may exit meanwhile.
    set_state "$worker" "$name" "$1" || true
  done
}

# Waits until the server has no connection, for $1 seconds at most.
wait_until_unused() {
  local end=$((SECONDS + $1)) printed=-5 left
  while left=$(count_connections "$name") && ((left > 0 && SECONDS < end)); do
    if ((SECONDS - printed >= 5)); then
      echo "$name has $left connections; waiting up to $((end - SECONDS)) s for them"
      printed=$SECONDS
    fi
    sleep 0.5
    # A worker that was started meanwhile by anything but reload-haproxy.sh has the server in service.
    set_state_in_all_workers drain
  done
  ((left == 0))
}

schedule_return() {
  local unit=return-server-$name
  systemctl stop "$unit.timer" 2>/dev/null || true
  systemd-run --quiet --collect --unit="$unit" --on-active="$((limit + seconds_until_return))" "$(dirname "$0")/return-server.sh" "$name" ||
    echo "Could not start the timer that returns $name to service after an interrupted update." >&2
}

if ! worker=$(list_workers | head -n 1) || [[ -z $worker ]]; then
  echo "HAProxy does not run, so $name has no connections"
  exit
fi
if [[ -z $(list_backends "$worker" "$name") ]]; then
  echo "HAProxy has no server $name"
  exit
fi
alone=$(list_backends_without_other_servers "$worker")
if [[ -n $alone ]]; then
  echo "$name stays in service: no other server is up in the backends ${alone//$'\n'/, }"
  exit
fi
schedule_return
set_state_in_all_workers drain
if wait_until_unused "$limit"; then
  set_state_in_all_workers maint
  # Requests of sticky clients that came in the meantime.
  wait_until_unused 0 || sleep 1
else
  set_state_in_all_workers maint
fi
echo "$name is out of service with $(count_connections "$name") connections left"
