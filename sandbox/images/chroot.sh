# Functions for the scripts that install packages in a root file system. They run commands in a chroot with the host's network.
# shellcheck shell=bash disable=SC2154  # the script sets target
# The mounts disappear when the builder's mount namespace ends (sandbox/cloud/images.py).

run_in_target() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$target" "$@"
}

# Mounts what package installation needs, with the host's resolver.
mount_target() {
  mount --rbind /dev "$target/dev"
  mount -t proc proc "$target/proc"
  mount -t tmpfs tmpfs "$target/run"
  mount -t tmpfs tmpfs "$target/var/lib/apt/lists"
  had_resolver=true
  [[ -e "$target/etc/resolv.conf" ]] || had_resolver=false
  touch "$target/etc/resolv.conf"
  mount --bind /etc/resolv.conf "$target/etc/resolv.conf"
}

unmount_resolver() {
  umount "$target/etc/resolv.conf"
  $had_resolver || rm "$target/etc/resolv.conf"
}

install_packages() {
  mount_target
  run_in_target apt-get update --quiet
  run_in_target apt-get install --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
  run_in_target apt-get clean
  unmount_resolver
}
