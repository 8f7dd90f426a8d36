#!/usr/bin/env bash
# Puts into TARGET, a writable Debian 13 tree, what the tests and benchmarks run of the load balancer:
# HAProxy and the packages of its scripts that a real one installs, and wrk to measure it.
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1

install_packages haproxy socat wrk
