#!/usr/bin/env bash
# Waits for cloud-init, then installs scripts into a directory. Standard input holds them, each after a line "=== NAME".
# usage: install-scripts.sh DIRECTORY < scripts
set -euo pipefail
directory=$1

status=0
cloud-init status --wait >/dev/null || status=$?
# Exit code 2 stands for warnings.
if ((status != 0 && status != 2)); then
  echo "cloud-init failed on this machine:" >&2
  cloud-init status --long | tail -n 20 >&2
  exit 1
fi
rm -rf "$directory.new"
mkdir -p "$directory.new"
cd "$directory.new"
awk '/^=== / { file = $2; next } { print > file }'
chmod 0755 ./*
# One by one: units run these scripts, also after a reboot in the middle.
mkdir -p "$directory"
for file in "$directory"/*; do
  [[ -e ${file##*/} ]] || rm -rf "$file"
done
mv ./* "$directory"
rmdir "$directory.new"
