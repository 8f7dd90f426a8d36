#!/usr/bin/env bash
# Installs HAProxy, socat for its scripts, nginx for tests of caching, Prometheus for tests of the alert rules, and wrk and h2load for
# benchmarks in a writable Debian 13 tree.
# usage: haproxy.sh TARGET
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1

install_packages haproxy socat nginx prometheus wrk nghttp2-client
