#!/usr/bin/env bash
# Installs Valkey for tests in a writable Debian 13 tree.
# usage: valkey.sh TARGET
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1

install_packages valkey-server
