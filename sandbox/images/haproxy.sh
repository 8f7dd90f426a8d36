#!/usr/bin/env bash
# Puts into TARGET, a writable Debian 13 tree, what the tests and benchmarks run of the load balancer:
# HAProxy from the packages that a real one installs, and wrk to measure it.
set -euo pipefail

target=$1
packages=(haproxy wrk)

# The script goes on in a mount namespace of its own: however it ends, its mounts end with it.
if [[ ${HAPROXY_BUILD:-} != inside ]]; then
  exec env HAPROXY_BUILD=inside unshare --mount --propagation private -- bash "${BASH_SOURCE[0]}" "$target"
fi

in_target() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$target" "$@"
}

borrow_from_host() {
  mount --rbind /dev "$target/dev"
  mount -t proc proc "$target/proc"
  mount -t tmpfs tmpfs "$target/run"
  mount -t tmpfs tmpfs "$target/var/lib/apt/lists"
  # The host's resolver, for the length of the build; the tree itself has none or its own.
  if [[ ! -e "$target/etc/resolv.conf" ]]; then
    touch "$target/etc/resolv.conf"
    trap 'umount "$target/etc/resolv.conf"; rm "$target/etc/resolv.conf"' EXIT
  fi
  mount --bind /etc/resolv.conf "$target/etc/resolv.conf"
}

borrow_from_host
in_target apt-get update -qq
in_target apt-get install -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
in_target apt-get clean
