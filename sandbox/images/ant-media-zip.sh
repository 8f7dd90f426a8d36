#!/usr/bin/env bash
# Installs a real Ant Media Server in a writable Debian 13 tree.
# usage: ant-media-zip.sh TARGET ant-media-server-….zip
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=chroot.sh
source "$here/chroot.sh"

target=$1 zip=$2

mount_target
scripts=$here/../../templates/scripts
for file in "$scripts/every-machine/prelude.sh" "$scripts/node/install-ant-media-server.sh" "$zip"; do
  touch "$target/run/${file##*/}"
  mount --bind "$file" "$target/run/${file##*/}"
done
checksum=$(sha256sum "$zip" | cut -d ' ' -f 1)
run_in_target bash /run/install-ant-media-server.sh "$checksum" standalone <<<"file:///run/${zip##*/}"
run_in_target apt-get clean
unmount_resolver
