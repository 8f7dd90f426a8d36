#!/usr/bin/env bash
# Installs a real Ant Media Server in a writable Debian 13 tree.
# usage: ant-media-zip.sh TARGET ant-media-server-….zip
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=chroot.sh
source "$here/chroot.sh"

target=$1 zip=$2

mount_target
for file in "$here/install-ant-media-server.sh" "$zip"; do
  touch "$target/run/${file##*/}"
  mount --bind "$file" "$target/run/${file##*/}"
done
run_in_target bash /run/install-ant-media-server.sh "/run/${zip##*/}"
run_in_target apt-get clean
unmount_resolver
