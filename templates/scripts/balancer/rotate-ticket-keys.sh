#!/usr/bin/env bash
# Rotates the keys of HAProxy's TLS session tickets: drops the oldest of three and adds a new one. Creates all three if there are none.
source "$(dirname "$0")/prelude.sh"
# In memory only: a key decrypts the traffic of every session that it was used for.
directory=/run/haproxy-tls
keys=$directory/ticket-keys

print_new_key() {
  head -c 80 /dev/urandom | base64 -w 0
  echo
}

# HAProxy encrypts tickets with the second key and accepts all three. Each key is thus known one rotation before and after its use.
rotate_file() {
  umask 077
  install -d -m 0700 "$directory"
  {
    if [[ -e $keys ]]; then
      cat "$keys"
    else
      print_new_key
      print_new_key
    fi
    print_new_key
  } | tail -n 3 >"$keys.new"
  mv "$keys.new" "$keys"
}

ask_haproxy() { socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock; }

# Gives all three keys to the running HAProxy. Each replaces HAProxy's oldest key, so it ends with the keys of the file in their order,
# even if it has just read the file.
update_haproxy() {
  local used answer
  # A stopped HAProxy reads the file when it starts.
  used=$(ask_haproxy <<<"show tls-keys" 2>/dev/null) || return 0
  # The configuration of Debian's package uses no keys.
  [[ $used != "# id (file)" ]] || return 0
  answer=$(sed "s|^|set ssl tls-key $keys |" "$keys" | paste -sd ";" | ask_haproxy) || true
  if (($(grep -cF "TLS ticket key updated!" <<<"$answer") != 3)); then
    grep . <<<"$answer" | sort -u | fail "HAProxy did not accept the new ticket keys from $keys. HAProxy reports:"
  fi
}

# Not HAProxy's lock: its holder may be starting HAProxy, which waits for this script.
exec 9>/run/lock/haproxy-ticket-keys
flock 9
rotate_file
update_haproxy
