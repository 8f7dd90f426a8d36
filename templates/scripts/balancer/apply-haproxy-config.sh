#!/usr/bin/env bash
# Applies a new haproxy.cfg: validates it, swaps the file, reloads HAProxy and verifies the ports.
# Restores the previous configuration if any of these fails.
# usage: apply-haproxy-config.sh < haproxy.cfg
source "$(dirname "$0")/prelude.sh"
current=/etc/haproxy/haproxy.cfg
previous=$current.previous
new=$current.new

validate_new_config() {
  local message
  if ! message=$(haproxy -c -f "$new" -f /etc/haproxy/credentials.cfg 2>&1); then
    rm "$new"
    tail -n 20 <<<"$message" | fail "HAProxy rejected the new configuration and still serves the previous one. HAProxy reports:"
  fi
}

roll_back() {
  cp -p "$previous" "$current"
  if "$(dirname "$0")/reload-haproxy.sh"; then
    echo "HAProxy serves the previous configuration again." >&2
  else
    echo "HAProxy could not return to the previous configuration. See journalctl -u haproxy on the load balancer." >&2
  fi
  exit 1
}

# Connects to every port that the file binds, at the machine's own address.
verify_ports() {
  local address port failed=0
  address=$(ip -4 -o route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')
  while read -r port; do
    if ! timeout 5 bash -c "exec 3<>/dev/tcp/$address/$port" 2>/dev/null; then
      echo "Port $port does not answer." >&2
      failed=1
    fi
  done < <(sed -n 's/^ *bind  *[*]\{0,1\}:\([0-9][0-9]*\).*/\1/p' "$current")
  if [[ $(curl -s --max-time 5 -o /dev/null -w '%{http_code}' "http://$address/") != 301 ]]; then
    echo "Port 80 does not redirect to HTTPS." >&2
    failed=1
  fi
  return "$failed"
}

exec 9>/run/lock/haproxy
flock 9
cat >"$new"
chmod 0644 "$new"
validate_new_config
[[ -e $previous ]] || cp -p "$current" "$previous"
mv "$new" "$current"
"$(dirname "$0")/reload-haproxy.sh" || roll_back
verify_ports || roll_back
# From here on a rollback returns to this configuration.
cp -p "$current" "$previous"
save_record <<<"file $current"
echo "HAProxy serves the new configuration"
