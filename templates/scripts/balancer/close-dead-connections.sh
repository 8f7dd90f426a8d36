#!/usr/bin/env bash
# Closes the connections to nodes that do not respond, so that clients reconnect to another node. A systemd service runs it.
#
# HAProxy sends no new request to a node that is down, and leaves its open connections alone: the node may only be slow. HAProxy itself
# could only end them all (on-marked-down shutdown-sessions), GET requests too, and not in old workers, which make no health checks after a
# reload. When the kernel aborts the connections instead, every worker ends the node's WebSockets and RTMP sessions, and
# sends its GET requests to another node.
source "$(dirname "$0")/prelude.sh"
# A node that is down after 2.8 s loses its connections if it then does not respond for this time: within 10 s in all.
readonly patience=4

# Prints a line for each server in each backend. Columns 4 to 6 are name, address and operational state.
list_servers() { socat -t 5 - UNIX-CONNECT:/run/haproxy/admin.sock <<<"show servers state" 2>/dev/null; }

# Any response, an error too, shows that the node still runs its sessions.
# The local ports are not those of HAProxy: when these are used up, nodes are down for HAProxy, and serve their sessions.
close_unless_it_responds() {
  local name=$1 address=$2 closed
  curl --silent --output /dev/null --local-port 20000-29999 --max-time "$patience" "http://$address:5080/rest/v2/liveness" && return
  # Connections of the operator's SSH sessions stay.
  closed=$(ss --kill --no-header --tcp state established dst "$address" '( dport = :5080 or dport = :1935 )' | wc -l)
  ((closed == 0)) || echo "$name is down and did not respond within $patience s: closed $closed connections to it"
}

declare -A probes
# Nothing is ever written to this pipe. To wait with it starts no process.
exec {silence}<> <(:)
# systemd starts the script again after an hour, in the version that is then installed.
while ((SECONDS < 3600)); do
  read -rt 1 -u "$silence" || true
  while read -r _ _ _ name address state _; do
    # A server that is down gets no requests. One probe of a node at a time.
    if [[ $state == 0 ]] && { [[ -z ${probes[$name]:-} ]] || ! kill -0 "${probes[$name]}" 2>/dev/null; }; then
      close_unless_it_responds "$name" "$address" &
      probes[$name]=$!
    fi
  done < <(list_servers)
done
