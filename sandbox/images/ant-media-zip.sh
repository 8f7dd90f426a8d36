#!/usr/bin/env bash
# Installs a real Ant Media Server from ZIP (ant-media-server-….zip) in TARGET, a writable Debian 13 tree,
# the way Ant Media's own installer does: /usr/local/antmedia, user antmedia, the unit that the archive brings.
#
# Ant Media builds for Java 17; Debian 13 has 21 as its oldest. It runs there too, but for options in the archive's
# unit that Java 21 knows no more: a drop-in makes it pass over them.
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1 zip=$2

# Before anything that takes time.
listing=$(python3 -m zipfile -l "$zip" 2>/dev/null || true)
if [[ $listing != *$'\nant-media-server/antmedia.service '* ]]; then
  echo "$zip is no Ant Media Server archive: there is no ant-media-server/antmedia.service in it." >&2
  exit 1
fi

unpack() {
  touch "$target/run/server.zip"
  mount --bind "$zip" "$target/run/server.zip"
  in_target unzip -q /run/server.zip -d /run/unpacked
  mv "$target/run/unpacked/ant-media-server" "$target/usr/local/antmedia"
}

install_server() {
  local home=$target/usr/local/antmedia
  in_target useradd --system --home-dir /usr/local/antmedia --shell /bin/false antmedia
  # The original's installer makes these two as well; conf/instanceId of whoever packed the archive is not this server's.
  install -d "$target/var/log/antmedia"
  [[ -e $home/log ]] || ln -s /var/log/antmedia "$home/log"
  rm -f "$home/conf/instanceId"
  in_target chown -R antmedia:antmedia /usr/local/antmedia /var/log/antmedia
  install -m 0644 "$home/antmedia.service" "$target/etc/systemd/system/antmedia.service"
  install -D -m 0644 /dev/stdin "$target/etc/systemd/system/antmedia.service.d/java.conf" <<'UNIT'
[Service]
Environment=JAVA_HOME=/usr/lib/jvm/java-21-openjdk-amd64
Environment=JDK_JAVA_OPTIONS=-XX:+IgnoreUnrecognizedVMOptions
UNIT
  in_target systemctl --quiet enable antmedia.service
}

install_packages openjdk-21-jre-headless unzip curl libva-drm2 libva-x11-2 libvdpau1
unpack
install_server
