#!/usr/bin/env bash
# Installs the machine image `ant-media` in a writable Debian 13 tree: a stand-in for Ant Media's Marketplace image.
# It is not Ant Media's software: ant-media/README lists its functions.
# usage: ant-media.sh TARGET
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/ant-media

install_server() {
  local home=$target/usr/local/antmedia app
  run_in_target useradd --system --home-dir /usr/local/antmedia --shell /bin/false --comment "Ant Media Server (stand-in)" antmedia
  install -d "$home/conf" "$home/webapps" "$target/var/log/antmedia"
  ln -s /var/log/antmedia "$home/log"
  install -m 0644 "$here/README" "$home/README"
  install -m 0755 "$here/change_server_mode.sh" "$home/"
  install -m 0755 "$here/conf/init.sh" "$home/conf/"
  install -m 0644 "$here/conf/red5.properties" "$here/conf/jee-container.xml" "$home/conf/"
  for app in LiveApp WebRTCAppEE live root; do
    install -D -m 0644 "$here/conf/red5-web.properties" "$home/webapps/$app/WEB-INF/red5-web.properties"
  done
  install -D -m 0644 -t "$home/standin" "$here"/standin/*.{py,json}
  run_in_target chown -R antmedia:antmedia /usr/local/antmedia /var/log/antmedia
  run_in_target python3 -m compileall -q /usr/local/antmedia/standin
  install -m 0644 "$here/antmedia.service" "$home/"
  install -m 0644 "$here"/*.service "$target/etc/systemd/system/"
  # antmedia.service starts nginx itself.
  run_in_target systemctl --quiet disable nginx.service
  run_in_target systemctl --quiet enable antmedia.service antmedia-first-boot.service
}

# The second line is what Ant Media's installer installs.
install_packages nginx libnginx-mod-rtmp python3-aiohttp python3-redis python3-pymongo python3-yaml \
  curl unzip zip logrotate libva-drm2 libva-x11-2 libvdpau1
install_server
