#!/usr/bin/env bash
# Sets the user and password for HAProxy's statistics and metrics.
# usage: set-statistics-password.sh USER < password
source "$(dirname "$0")/prelude.sh"
user=$1
credentials=/etc/haproxy/credentials.cfg

read -r password
exec 9>/run/lock/haproxy
flock 9
umask 077
previous=$(cat "$credentials" 2>/dev/null) || true
config_is_valid() { haproxy -c -f /etc/haproxy/haproxy.cfg -f "$credentials" >/dev/null 2>&1; }
was_valid=$(config_is_valid && echo yes) || true
cat >"$credentials.new" <<END
# Statistics and metrics on port 6080; haproxy.cfg refers to this list.
userlist statistics
    user $user password $(openssl passwd -6 -stdin <<<"$password")
END
mv "$credentials.new" "$credentials"
if ! message=$("$(dirname "$0")/reload-haproxy.sh" 2>&1); then
  # If HAProxy rejected its files before, the error is in another file. The script that writes that file reloads HAProxy.
  if [[ -n $was_valid ]]; then
    echo "$previous" >"$credentials"
    echo "$message" >&2
    exit 1
  fi
fi
save_record <<<"secret $credentials"
echo "Set the statistics password of $user"
