#!/usr/bin/env bash
# Prints a snapshot of the registry (an RDB file) on standard output. Valkey goes on serving meanwhile.
# usage: back-up-registry.sh > file
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"

# Valkey does not start while it rewrites its append-only file.
until reply=$(ask_once BGSAVE) && [[ $reply == *started* ]]; do
  ((SECONDS < 60)) || fail "Valkey does not save a snapshot: $reply" </dev/null
  sleep 0.5
done
until [[ $(ask_valkey <<<"INFO persistence") == *rdb_bgsave_in_progress:0* ]]; do
  ((SECONDS < 250)) || fail "Valkey is still writing the snapshot" </dev/null
  sleep 0.2
done
[[ $(ask_valkey <<<"INFO persistence") == *rdb_last_bgsave_status:ok* ]] ||
  tail -n 5 /var/log/valkey/valkey-server.log | fail "Valkey could not write the snapshot. The end of its log:"
cat "$data/dump.rdb"
