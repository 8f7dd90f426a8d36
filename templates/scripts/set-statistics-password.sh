#!/usr/bin/env bash
# Sets who may see HAProxy's statistics and metrics.
# usage: set-statistics-password.sh USER < password
source "$(dirname "$0")/prelude.sh"
user=$1
credentials=/etc/haproxy/credentials.cfg

read -r password
exec 9>/run/lock/haproxy
flock 9
umask 077
previous=$(<"$credentials")
cat >"$credentials.new" <<END
# Statistics and metrics on port 6080; haproxy.cfg refers to this list.
userlist statistics
    user $user password $(openssl passwd -6 -stdin <<<"$password")
END
mv "$credentials.new" "$credentials"
if ! "$(dirname "$0")/reload-haproxy.sh"; then
  echo "$previous" >"$credentials"
  exit 1
fi
echo "Statistics are open to $user"
