#!/usr/bin/env bash
# Drains the servers that the next configuration no longer has. HAProxy loads it afterwards, and then their machines are deleted.
# usage: drain-removed-servers.sh SECONDS NAME...
#   SECONDS   how long their connections may last; 0: do not wait for them
#   NAME      the servers that stay
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
seconds=$1
shift

# Every node is a server of the backend `origins`, edges as backup.
list_removed_servers() {
  list_servers "$(list_workers | head -n 1)" pxname svname | awk -F '\t' -v stay="$*" '
    BEGIN { split(stay, names, " "); for (i in names) stays[names[i]] = 1 }
    $1 == "origins" && !($2 in stays) { print $2 }'
}

mapfile -t removed < <(list_removed_servers "$@")
if ((${#removed[@]} == 0)); then
  echo "No server is removed"
  exit
fi
drain_servers "$seconds" "${removed[@]}"
