# Sourced by the scripts that run on a machine: what several of them need.
# shellcheck shell=bash
set -euo pipefail

# Ends the script with its arguments as the message and what is piped into it as the details.
fail() {
  echo "$*" >&2
  cat >&2
  exit 1
}

install_packages() {
  local log=/var/log/install-packages.log
  echo "Installing $*"
  if ! {
    # Unlike the installation, an update of the lists does not wait for another one that is under way.
    until apt-get update || ((SECONDS > 120)); do sleep 3; done
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
  } >"$log" 2>&1; then
    tail -n 20 "$log" | fail "apt-get failed; the end of $log:"
  fi
}

# certbot, once nobody else uses it: its timer may be at work.
certbot_in_turn() {
  local output status tries=0
  until output=$(certbot "$@" 2>&1) && status=0 || status=$?; [[ $output != *"Another instance of Certbot"* ]] || ((++tries > 40)); do
    sleep 3
  done
  echo "$output"
  return "$status"
}

# Gives systemd a file on standard input: add_unit_file haproxy.service.d/restart.conf
add_unit_file() {
  local file=/etc/systemd/system/$1 text
  text=$(cat)
  [[ $text != "$(cat "$file" 2>/dev/null)" ]] || return 0
  install -D -m 0644 /dev/stdin "$file" <<<"$text"
  systemctl daemon-reload
}
