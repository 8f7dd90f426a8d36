#!/usr/bin/env bash
# Applies a new haproxy.cfg: validates it, checks its ports, rehearses it, swaps the file, reloads HAProxy and verifies the ports.
# Restores the last good configuration if any of these fails. If this script is killed, restore-haproxy-config.sh does.
# usage: apply-haproxy-config.sh < haproxy.cfg
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
current=/etc/haproxy/haproxy.cfg
# The last configuration that passed this script.
last_good=$current.last-good
# Exists while the configuration is not verified.
new=$current.new
# Seconds. Nodes that serve pass their health checks in the first few; no viewer waits for it.
readonly rehearsal_limit=30

# Ends the script before anything changed. Standard input says why.
reject() {
  rm -f "$new" "$current.staged"
  fail "$1 HAProxy still serves the previous one. $2:"
}

# After this, no step needs disk space.
write_new_config() {
  local message
  if ! message=$({ cat >"$new" && chmod 0644 "$new" && cp -p "$new" "$current.staged" && sync "$new" "$current.staged"; } 2>&1); then
    reject "The new configuration could not be written." "The error is" <<<"$message"
  fi
}

validate_new_config() {
  local message
  message=$(haproxy -c -f "$new" -f /etc/haproxy/credentials.cfg 2>&1) ||
    tail -n 20 <<<"$message" | reject "HAProxy rejected the new configuration." "HAProxy reports"
}

# Refuses a port that another process has. In a reload, HAProxy would refuse viewers for 2 s while it tries to bind it.
check_ports() {
  local taken
  # With the options of HAProxy's own sockets, which therefore do not conflict. Without listen(), the socket gets no connection.
  taken=$(list_ports "$new" | python3 -c '
import socket, sys
for port in sys.stdin.read().split():
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind(("", int(port)))
        except OSError as error:
            sys.exit(f"{port} {error.strerror}")' 2>&1) ||
    { ss -Htanp exclude time-wait "sport = :${taken%% *}" || true; } | head -n 20 |
    reject "Port ${taken%% *} of the new configuration cannot be bound: ${taken#* }." "Its sockets and their processes"
}

# Prints the backends of a table of `show stat` with a server that is up and that HAProxy checks itself. Backup servers do not count.
list_serving_backends() { select_columns pxname act status tracked check_status | awk -F '\t' '$2 == 1 && $3 ~ /^UP/ && $4 == "-" && $5 != "-" { print $1 }' | sort -u; }

# Prints those of the backends in $1 that are in a table of `show stat` without a server that passed a health check.
list_failing_backends() {
  select_columns pxname act status check_status | awk -F '\t' -v wanted="$1" '
    BEGIN { split(wanted, names, "\n"); for (i in names) is_wanted[names[i]] = 1 }
    $1 in is_wanted { found[$1] = 1 }
    $2 == 1 && $3 == "UP" && $4 ~ /OK$/ { passed[$1] = 1 }
    END { for (backend in found) if (!(backend in passed)) print backend }' | sort
}

# Starts a second HAProxy with the new configuration and without its ports. So a configuration fails before viewers meet it
# if this machine does not allow its limits, or if no server of a backend passes its health checks although one is up now.
rehearse_new_config() {
  local folder=/run/haproxy-rehearsal end=$((SECONDS + rehearsal_limit)) process serving answer failing=''
  rm -rf "$folder"
  install -d -m 0700 "$folder"
  # HAProxy spreads the first checks of all servers over the interval.
  sed -E "/^ *(bind|log) /d; s|^( *stats socket) [^ ]+|\1 $folder/socket|; s|^( *default-server inter) [^ ]+|\1 100ms|" "$new" >"$folder/haproxy.cfg"
  serving=$({ ask_haproxy "$(list_workers | head -n 1)" "show stat -1 4 -1" || true; } | list_serving_backends)
  # It ends with this script, and does not keep its lock.
  setpriv --pdeathsig TERM timeout "$((2 * rehearsal_limit))" \
    haproxy -db -f "$folder/haproxy.cfg" -f /etc/haproxy/credentials.cfg >"$folder/output" 2>&1 9>&- &
  process=$!
  until answer=$(socat -t 10 - "UNIX-CONNECT:$folder/socket" <<<"show stat -1 4 -1" 2>/dev/null) &&
    failing=$(list_failing_backends "$serving" <<<"$answer") && [[ -z $failing ]]; do
    if ! kill -0 "$process" 2>/dev/null; then
      tail -n 20 "$folder/output" | reject "HAProxy could not start with the new configuration." "HAProxy reports"
    elif [[ -n $failing ]] && ((SECONDS > end)); then
      select_columns pxname svname status check_status last_chk <<<"$answer" | grep -E "^(${failing//$'\n'/|})"$'\t' | head -n 20 |
        reject "With the new configuration no server of ${failing//$'\n'/, } passes its health checks." "Server, state, last check"
    fi
    sleep 0.05
  done
  kill "$process"
  wait "$process" || true
  rm -r "$folder"
}

roll_back() {
  # restore-haproxy-config.sh takes the lock.
  exec 9>&-
  if "$(dirname "$0")/restore-haproxy-config.sh" >/dev/null; then
    echo "HAProxy serves the previous configuration again." >&2
  else
    echo "HAProxy could not return to the previous configuration. See journalctl -u haproxy on the load balancer." >&2
  fi
  exit 1
}

# Waits until the old workers accept no connection any more: one of them could answer for the new one. They get their signal when the
# new one is ready, and may not run at once.
wait_for_old_workers() {
  local worker end=$((SECONDS + 20))
  for worker in $(list_workers | tail -n +2); do
    while ((SECONDS < end)) && [[ $(ask_haproxy "$worker" "show info") == *"Stopping: 0"* ]]; do
      sleep 0.05
    done
  done
}

# Connects to every port that the file binds, at the machine's own address.
verify_ports() {
  local address answering port ports failed=0
  wait_for_old_workers
  address=$(ip -4 -o route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')
  mapfile -t ports < <(list_ports)
  # shellcheck disable=SC2016  # the inner shell has arguments of its own
  answering=$(timeout 20 bash -c 'for port in "${@:2}"; do { exec 3<>"/dev/tcp/$1/$port"; } 2>/dev/null && echo "$port"; done' - "$address" "${ports[@]}") || true
  for port in "${ports[@]}"; do
    if ! grep -qxF "$port" <<<"$answering"; then
      echo "Port $port does not answer." >&2
      failed=1
    fi
  done
  if [[ $(curl -s --max-time 20 -o /dev/null -w '%{http_code}' "http://$address/") != 301 ]]; then
    echo "Port 80 does not redirect to HTTPS." >&2
    failed=1
  fi
  return "$failed"
}

# After an apply that was killed. If this fails, the new configuration may be the remedy.
"$(dirname "$0")/restore-haproxy-config.sh" || true
exec 9>/run/lock/haproxy
flock 9
# Waits for the lock: it restores the last good configuration if this script is killed.
systemd-run --quiet --collect "$(dirname "$0")/restore-haproxy-config.sh" ||
  echo "Nothing will restore the last good configuration if this update is killed: systemd-run failed." >&2
write_new_config
validate_new_config
check_ports
rehearse_new_config
[[ -e $last_good || ! -e $current ]] || ln "$current" "$last_good"
mv "$current.staged" "$current"
"$(dirname "$0")/reload-haproxy.sh" validated || roll_back
verify_ports || roll_back
mv "$new" "$last_good"
save_record <<<"file $current"
echo "HAProxy serves the new configuration"
