# Functions that read and change the state of HAProxy's servers. A server has one name in all backends: edge1. Scripts source this file.
# shellcheck shell=bash

# Sends commands to a process of HAProxy: ask_haproxy master COMMAND…, or ask_haproxy PID COMMAND…. Fails if HAProxy does not run.
# The master refuses connections for a moment when it reloads or is restarted; hence the retries.
ask_haproxy() {
  local process=$1 command answer
  shift
  [[ $process == master ]] || set -- "${@/#/@!$process }"
  command=$(IFS=';' && echo "$*")
  for _ in {1..20}; do
    if answer=$(socat -t 10 - UNIX-CONNECT:/run/haproxy-master.sock <<<"$command" 2>/dev/null); then
      echo "$answer"
      return
    fi
    [[ $(systemctl show haproxy --property=ActiveState --value) != @(inactive|failed) ]] || return 1
    sleep 0.1
  done
  return 1
}

# Prints the PIDs of the workers, the current one first. After a reload old workers serve their connections until these close.
list_workers() { ask_haproxy master "show proc" | awk '$2 == "worker" { print $1 }'; }

# Prints the backends that have the server $2 in the worker $1.
list_backends() { ask_haproxy "$1" "show servers state" | awk -v name="$2" '$4 == name { print $2 }'; }

# Prints the columns named in $1… of a table of `show stat`, separated by tabs; "-" for an empty value.
select_columns() {
  awk -F, -v OFS='\t' -v columns="$*" '
    NR == 1 { sub("^# *", ""); for (i = 1; i <= NF; i++) number[$i] = i; count = split(columns, wanted, " "); next }
    NF > 1 { for (i = 1; i <= count; i++) printf "%s%s", ($number[wanted[i]] == "" ? "-" : $number[wanted[i]]), (i < count ? OFS : "\n") }'
}

# Prints the rows of a worker's servers with the columns named in $2….
list_servers() { ask_haproxy "$1" "show stat -1 4 -1" | select_columns "${@:2}"; }

# Sets the administrative state (ready, drain or maint) of the server $1 in all backends. Old workers refuse this ("Proxy is
# disabled"): they get no new connections, and close each one with its next response, or after 30 s without a request.
set_state() {
  local worker backend commands=()
  worker=$(list_workers | head -n 1) || return 0
  for backend in $(list_backends "$worker" "$1"); do
    commands+=("set server $backend/$1 state $2")
  done
  ((${#commands[@]} == 0)) || ask_haproxy "$worker" "${commands[@]}" >/dev/null
}

# Closes the connections of the server $1 in all workers, on both sides, so that clients reconnect at once.
close_connections() {
  local worker backend commands=() sessions
  worker=$(list_workers | head -n 1) || return 0
  for backend in $(list_backends "$worker" "$1"); do
    commands+=("shutdown sessions server $backend/$1")
  done
  ((${#commands[@]} == 0)) || ask_haproxy "$worker" "${commands[@]}" >/dev/null
  for worker in $(list_workers | tail -n +2); do
    # Old workers refuse that command as well. An old worker may exit meanwhile.
    { ask_haproxy "$worker" "show sess" || true; } | sed -n "s/^\(0x[0-9a-f]*\):.* srv=$1 .*/shutdown session \1/p" |
      while mapfile -t -n 100 sessions && ((${#sessions[@]} > 0)); do
        ask_haproxy "$worker" "${sessions[@]}" >/dev/null || true
      done
  done
}

# True if the server $1 does not pass its health checks. A server that is drained is still checked.
is_down() {
  list_servers "$(list_workers | head -n 1)" svname tracked status |
    awk -F '\t' -v name="$1" '$1 == name && $2 == "-" { status = $3 } END { exit status !~ /^DOWN/ }'
}

# Prints the number of the server's connections in all workers.
count_connections() {
  local worker
  for worker in $(list_workers); do
    # An old worker may exit meanwhile.
    list_servers "$worker" svname scur || true
  done | awk -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }'
}

# Prints the names of the servers that were set to drain or maintenance. Bits 1 and 8 of the administrative state stand for these.
list_drained() {
  local worker
  worker=$(list_workers | head -n 1)
  ask_haproxy "$worker" "show servers state" |
    awk '$7 ~ /^[0-9]+$/ && ($7 % 2 == 1 || int($7 / 8) % 2 == 1) { print $4 }' | sort -u
}

# The file that holds the digest of the settings with which the server $1 last returned to service.
in_service_file() { echo "/var/lib/ant-media-cluster/in-service/$1"; }

# Makes this process the only one that may change the state of the server $1. The script of an update that was killed may still run.
claim_server() { echo $$ >"/run/lock/haproxy-server-$1"; }
owns_server() { [[ $(cat "/run/lock/haproxy-server-$1") == "$$" ]]; }

# Takes servers out of service: drain_servers SECONDS NAME…
# New clients go to other servers at once. A server's sticky clients follow when it has no connection or SECONDS have passed. The
# connections that are left then are closed. Nobody waits for a server that is down. Skips a server if no other could take over.
drain_servers() {
  local seconds=$1 name waiting=() process failed=0
  shift
  # One after the other, so that each sees which of the others still serve. Then they wait together.
  for name in "$@"; do
    start_draining "$name" "$seconds" || continue
    finish_draining "$name" "$seconds" &
    waiting+=($!)
  done
  for process in "${waiting[@]}"; do
    wait "$process" || failed=1
  done
  return "$failed"
}

# Returns 1 if there is nothing to drain, and says why.
start_draining() {
  local name=$1 worker alone
  if ! worker=$(list_workers | head -n 1) || [[ -z $worker ]]; then
    echo "HAProxy does not run, so $name has no connections"
    return 1
  fi
  if [[ -z $(list_backends "$worker" "$name") ]]; then
    echo "HAProxy has no server $name"
    return 1
  fi
  alone=$(list_backends_without_other_servers "$worker" "$name")
  if [[ -n $alone ]] && ! is_down "$name"; then
    echo "$name stays in service: no other server is up in the backends ${alone//$'\n'/, }"
    return 1
  fi
  claim_server "$name"
  schedule_return "$name" "$2"
  set_state "$name" drain
}

finish_draining() {
  local name=$1 seconds=$2 left
  if is_down "$name"; then
    echo "$name is down, so nobody waits for its connections"
  else
    wait_until_unused "$name" "$seconds"
  fi
  owns_server "$name" || fail "Another update has taken over $name." </dev/null
  set_state "$name" maint
  # Requests that are under way, also of sticky clients that came in the meantime.
  for _ in {1..10}; do
    left=$(count_connections "$name")
    ((left > 0)) || break
    sleep 0.2
  done
  if ((left > 0)); then
    close_connections "$name"
    echo "$name is out of service; its last $left connections were closed"
  else
    echo "$name is out of service; it has no connections"
  fi
}

# Prints the backends of the worker $1 in which no server but $2 is up.
list_backends_without_other_servers() {
  list_servers "$1" pxname svname status | awk -F '\t' -v name="$2" '
    $2 == name { has[$1] = 1 }
    $2 != name && ($3 ~ /^UP/ || $3 == "no check") { other[$1] = 1 }
    END { for (backend in has) if (!(backend in other)) print backend }' | sort
}

# Waits until the server $1 has no connection or is down, for $2 seconds at most.
wait_until_unused() {
  local name=$1 end=$((SECONDS + $2)) printed=-5 left
  while left=$(count_connections "$name") && ((left > 0 && SECONDS < end)) && ! is_down "$name"; do
    if ((SECONDS - printed >= 5)); then
      echo "$name has $left connections; waiting up to $((end - SECONDS)) s for them"
      printed=$SECONDS
    fi
    sleep 0.5
    owns_server "$name" || fail "Another update has taken over $name." </dev/null
    # A worker that was started meanwhile by anything but reload-haproxy.sh has the server in service.
    set_state "$name" drain
  done
}

# A server that nobody puts back, because the update was interrupted, returns by itself an hour after the end of its drain.
schedule_return() {
  local unit=return-server-$1
  systemctl stop "$unit.timer" 2>/dev/null || true
  systemd-run --quiet --collect --unit="$unit" --on-active="$(($2 + 3600))" "$(dirname "$0")/return-server.sh" "$1" ||
    echo "Could not start the timer that returns $1 to service after an interrupted update." >&2
}
