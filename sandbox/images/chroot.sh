# Sourced by the scripts that install into a tree: work inside TARGET with the host's network.
# shellcheck shell=bash disable=SC2154  # target is the script's
# What is mounted here ends with the builder's mounts (images.py), however the script ends.

in_target() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$target" "$@"
}

install_packages() {
  mount --rbind /dev "$target/dev"
  mount -t proc proc "$target/proc"
  mount -t tmpfs tmpfs "$target/run"
  mount -t tmpfs tmpfs "$target/var/lib/apt/lists"
  # The host's resolver, for the length of the build.
  local had_resolver=true
  [[ -e "$target/etc/resolv.conf" ]] || had_resolver=false
  touch "$target/etc/resolv.conf"
  mount --bind /etc/resolv.conf "$target/etc/resolv.conf"
  in_target apt-get update --quiet
  in_target apt-get install --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
  in_target apt-get clean
  umount "$target/etc/resolv.conf"
  $had_resolver || rm "$target/etc/resolv.conf"
}
