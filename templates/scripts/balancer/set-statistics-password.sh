#!/usr/bin/env bash
# Sets the user and password for HAProxy's statistics and metrics.
# usage: set-statistics-password.sh USER < password
source "$(dirname "$0")/prelude.sh"
user=$1
credentials=/etc/haproxy/credentials.cfg

config_is_valid() { haproxy -c -f /etc/haproxy/haproxy.cfg -f "$1" 2>&1; }

read -r password
"$(dirname "$0")/restore-haproxy-config.sh" || true
exec 9>/run/lock/haproxy
flock 9
umask 077
cat >"$credentials.new" <<END
# Statistics and metrics on port 6080; haproxy.cfg refers to this list.
userlist statistics
    user $user password $(openssl passwd -6 -stdin <<<"$password")
END
# If HAProxy rejects its files already, the error is in another one. The script that writes that file reloads HAProxy.
if config_is_valid "$credentials" >/dev/null; then
  message=$(config_is_valid "$credentials.new") || fail "HAProxy rejected the new statistics password:" <<<"$message"
  # A hard link needs no disk space.
  ln -f "$credentials" "$credentials.previous"
  mv "$credentials.new" "$credentials"
  if ! message=$("$(dirname "$0")/reload-haproxy.sh" 2>&1); then
    mv "$credentials.previous" "$credentials"
    fail "$message" </dev/null
  fi
  rm "$credentials.previous"
else
  mv "$credentials.new" "$credentials"
  "$(dirname "$0")/reload-haproxy.sh" >/dev/null 2>&1 || true
fi
save_record <<<"secret $credentials"
echo "Set the statistics password of $user"
