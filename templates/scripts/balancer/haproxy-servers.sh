# Functions that read and change the state of HAProxy's servers. A server has one name in all backends: edge1. Scripts source this file.
# shellcheck shell=bash

# Sends commands to a process of HAProxy: ask_haproxy master COMMAND…, or ask_haproxy PID COMMAND…. Fails if HAProxy does not run.
# The master refuses connections for a moment when it reloads; hence the retries.
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

# Sets the administrative state (ready, drain or maint) of the server $2 in all backends of the worker $1.
set_state() {
  local backend commands=()
  for backend in $(list_backends "$1" "$2"); do
    commands+=("set server $backend/$2 state $3")
  done
  ((${#commands[@]} == 0)) || ask_haproxy "$1" "${commands[@]}" >/dev/null
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
