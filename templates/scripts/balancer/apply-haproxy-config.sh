#!/usr/bin/env bash
# Puts a new haproxy.cfg into service: validate, swap, reload, verify; anything that fails brings the old one back.
# usage: apply-haproxy-config.sh < haproxy.cfg
source "$(dirname "$0")/prelude.sh"
current=/etc/haproxy/haproxy.cfg
previous=$current.previous
new=$current.new

validate() {
  local message
  if ! message=$(haproxy -c -f "$new" -f /etc/haproxy/credentials.cfg 2>&1); then
    rm "$new"
    tail -n 20 <<<"$message" | fail "HAProxy refuses the new configuration; the old one serves on. HAProxy says:"
  fi
}

roll_back() {
  cp -p "$previous" "$current"
  if "$(dirname "$0")/reload-haproxy.sh"; then
    echo "The configuration before it serves again." >&2
  else
    echo "Nor could the configuration before it be brought back." >&2
  fi
  exit 1
}

# From outside the process, at the machine's own address: every port that the file binds must answer.
verify() {
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
validate
[[ -e $previous ]] || cp -p "$current" "$previous"
mv "$new" "$current"
"$(dirname "$0")/reload-haproxy.sh" || roll_back
verify || roll_back
# Only what has served is worth coming back to.
cp -p "$current" "$previous"
keep <<<"file $current"
echo "HAProxy serves the new configuration"
