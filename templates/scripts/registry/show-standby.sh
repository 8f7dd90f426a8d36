#!/usr/bin/env bash
# Prints the state of the registry's standby on this machine, for operations/status/registry.py: none, follows, leads, or what is wrong.
# usage: show-standby.sh
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"

[[ -e /etc/systemd/system/keep-registry.service ]] || { echo none && exit; }
state=$(ask_valkey <<<"INFO replication" | tr -d '\r')
if [[ $state != *role:* ]]; then
  echo "does not run (valkey-server.service)"
elif ! systemctl --quiet is-active keep-registry; then
  echo "is not watched (keep-registry.service does not run)"
elif [[ $state == *role:master* ]]; then
  echo leads
elif [[ $state == *master_link_status:up* ]]; then
  echo follows
else
  echo "is not connected to the database"
fi
