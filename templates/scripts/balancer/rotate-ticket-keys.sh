#!/usr/bin/env bash
# Makes the keys of HAProxy's TLS session tickets, or puts a new one in place of the oldest and tells a HAProxy that runs.
source "$(dirname "$0")/prelude.sh"
# In memory only: who finds a key can read what was sent under it.
directory=/run/haproxy-tls
keys=$directory/ticket-keys

new_key() {
  head -c 80 /dev/urandom | base64 -w 0
  echo
}

# The second of the three makes tickets and all are accepted: each is known for a rotation before its use and after.
rotate() {
  umask 077
  install -d -m 0700 "$directory"
  {
    if [[ -e $keys ]]; then
      cat "$keys"
    else
      new_key
      new_key
    fi
    new_key
  } | tail -n 3 >"$keys.new"
  mv "$keys.new" "$keys"
}

ask_haproxy() { socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock; }

# A key that HAProxy is given takes the place of its oldest. Given all three it ends with the file's in their order,
# whatever it had, even when it read the file just now.
tell_haproxy() {
  local known answer
  # One that does not run reads the file when it starts.
  known=$(ask_haproxy <<<"show tls-keys" 2>/dev/null) || return 0
  # The package's own configuration knows no keys.
  [[ $known != "# id (file)" ]] || return 0
  answer=$(sed "s|^|set ssl tls-key $keys |" "$keys" | paste -sd ";" | ask_haproxy) || true
  if (($(grep -cF "TLS ticket key updated!" <<<"$answer") != 3)); then
    grep . <<<"$answer" | sort -u | fail "HAProxy does not take its new ticket keys from $keys; it says:"
  fi
}

# A lock of its own: who has HAProxy's may be starting it, and with it this.
exec 9>/run/lock/haproxy-ticket-keys
flock 9
rotate
tell_haproxy
