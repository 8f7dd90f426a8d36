#!/usr/bin/env bash
# Makes the machine image `ant-media` in TARGET, a writable Debian 13 tree: a stand-in for Ant Media's Marketplace image.
# It is not Ant Media's software; images/ant-media/README says what it does and does not.
# With AMS_ZIP (the path of an ant-media-server-….zip) it is the real one, from that archive.
set -euo pipefail

target=$1
if [[ -n ${AMS_ZIP:-} ]]; then
  exec "${BASH_SOURCE[0]%.sh}-zip.sh" "$target" "$AMS_ZIP"
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/ant-media
packages=(nginx libnginx-mod-rtmp python3-aiohttp python3-redis python3-yaml curl)

# The script goes on in a mount namespace of its own: however it ends, its mounts end with it.
if [[ ${ANT_MEDIA_BUILD:-} != inside ]]; then
  exec env ANT_MEDIA_BUILD=inside unshare --mount --propagation private -- bash "${BASH_SOURCE[0]}" "$target"
fi

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
  in_target apt-get update -qq
  in_target apt-get install -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
  in_target apt-get clean
  umount "$target/etc/resolv.conf"
  $had_resolver || rm "$target/etc/resolv.conf"
  # antmedia.service runs an nginx of its own.
  in_target systemctl --quiet disable nginx.service
}

install_server() {
  local home=$target/usr/local/antmedia app
  in_target useradd --system --home-dir /usr/local/antmedia --shell /bin/false --comment "Ant Media Server (stand-in)" antmedia
  install -d "$home/conf" "$home/webapps" "$target/var/log/antmedia"
  ln -s /var/log/antmedia "$home/log"
  install -m 0644 "$here/README" "$home/README"
  install -m 0755 "$here/change_server_mode.sh" "$home/"
  install -m 0755 "$here/conf/init.sh" "$home/conf/"
  install -m 0644 "$here/conf/red5.properties" "$here/conf/jee-container.xml" "$home/conf/"
  for app in LiveApp WebRTCAppEE live root; do
    install -D -m 0644 "$here/conf/red5-web.properties" "$home/webapps/$app/WEB-INF/red5-web.properties"
  done
  install -D -m 0644 -t "$home/standin" "$here"/standin/*.py
  in_target chown -R antmedia:antmedia /usr/local/antmedia /var/log/antmedia
  in_target python3 -m compileall -q /usr/local/antmedia/standin
  install -m 0644 "$here"/*.service "$target/etc/systemd/system/"
  in_target systemctl --quiet enable antmedia.service antmedia-first-boot.service
}

install_packages
install_server
