#!/usr/bin/env bash
# Replaces the registry's data by a snapshot of back-up-registry.sh. If Valkey does not start with it, the old data returns.
# Nodes notice by the registry's new id, which install-valkey.sh prints.
# usage: restore-registry.sh < file
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"
readonly current=$data/appendonlydir restored=$data/restored previous=$data/before-restore

# Makes an append-only file that begins with the snapshot.
unpack_snapshot() {
  rm -rf "$restored"
  install -d -o valkey -g valkey -m 0750 "$restored"
  cat >"$restored/appendonly.aof.1.base.rdb"
  valkey-check-rdb "$restored/appendonly.aof.1.base.rdb" >"$restored.log" 2>&1 ||
    tail -n 2 "$restored.log" | fail "This is not a complete snapshot of a registry. Nothing was changed. valkey-check-rdb says:"
  # The new id is there with the data: with the old one, keep-registry.py could replace the data by that of the standby.
  id=$(print_random)
  # shellcheck disable=SC2016  # the dollar signs are Valkey's protocol
  printf '*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n' "${#registry_key}" "$registry_key" "${#id}" "$id" >"$restored/appendonly.aof.1.incr.aof"
  printf '%s\n' "file appendonly.aof.1.base.rdb seq 1 type b" "file appendonly.aof.1.incr.aof seq 1 type i" >"$restored/appendonly.aof.manifest"
  chown -R valkey:valkey "$restored"
}

# Returns to the data that this script, or an earlier run that was killed, put aside.
return_to_previous() {
  [[ ! -e $previous ]] && return
  systemctl stop valkey-server
  rm -rf "$current"
  mv "$previous" "$current"
  restart_valkey
}

return_to_previous
unpack_snapshot
trap 'return_to_previous; systemctl start valkey-server' EXIT
systemctl stop valkey-server
mv "$current" "$previous"
mv "$restored" "$current"
restart_valkey
wait_for_valkey
reply=$(ask_once "GET $registry_key")
[[ $reply == "$id" ]] || fail "Valkey does not have the registry's new id: $reply" </dev/null
trap - EXIT
rm -rf "$previous" "$restored.log"
echo "The registry is restored: $(ask_once DBSIZE) keys"
