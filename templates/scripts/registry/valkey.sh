# Functions for this machine's Valkey. Scripts source this file after prelude.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the scripts that source this file use the variables

# The user `default` is that of the nodes and may have several passwords. The user `operator` is that of these scripts:
# no script needs a node's password. The user `replication` is that of the other Valkey and of keep-registry.py.
# The user `probe` is that of the nodes' proxies. It has no password, and all it can do is to read the role.
readonly users=/etc/valkey/users.acl
readonly operator_password_file=/etc/valkey/operator-password
readonly replication_password_file=/etc/valkey/replication-password
readonly data=/var/lib/valkey
# Identifies the data of the registry. It is new in an empty registry, and after a restore.
readonly registry_key=ant-media-cluster:registry

# Sends the commands on standard input to Valkey, and prints the replies, one a line.
ask_valkey() {
  { printf 'AUTH operator %s\n' "$(cat "$operator_password_file")" && cat; } | valkey-cli -h 127.0.0.1 2>&1 | tail -n +2
}

# Prints the last line that Valkey replies to a command.
ask_once() { ask_valkey <<<"$1" | grep . | tail -n 1; }

hash_password() { sha256sum | cut -d ' ' -f 1; }

hash_file() { printf '%s' "$(cat "$1")" | hash_password; }

# Prints the users of the program.
print_own_users() {
  echo "user operator on sanitize-payload ~* &* +@all #$(hash_file "$operator_password_file")"
  echo "user replication on sanitize-payload resetchannels ~$registry_key -@all +psync +replconf +ping +role +replicaof +get +acl|getuser #$(hash_file "$replication_password_file")"
  echo "user probe on nopass sanitize-payload resetchannels -@all +role"
}

# Prints the hashes of the nodes' passwords.
list_passwords() { { grep '^user default ' "$users" 2>/dev/null || true; } | grep -oE '#[0-9a-f]{64}' | tr -d '#'; }

# Writes the file of users: write_users HASH... The hashes are those of the nodes' passwords.
write_users() {
  local new
  new=$(mktemp "$users.XXXXXX")
  chown root:valkey "$new"
  chmod 0640 "$new"
  {
    echo "user default on sanitize-payload ~* &* +@all ${*/#/#}"
    print_own_users
  } >"$new"
  mv "$new" "$users"
}

print_random() { head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

restart_valkey() {
  systemctl restart valkey-server ||
    journalctl --unit valkey-server --lines 10 --no-pager --output cat | fail "Valkey does not start. The end of its log:"
}

# Waits until Valkey has loaded its data.
wait_for_valkey() {
  local end=$((SECONDS + 250))
  until [[ $(ask_once PING) == PONG ]]; do
    if ((SECONDS > end)); then
      tail -n 10 /var/log/valkey/valkey-server.log | fail "Valkey does not answer ($(ask_once PING)). The end of its log:"
    fi
    sleep 0.5
  done
}
