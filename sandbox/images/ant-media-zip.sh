#!/usr/bin/env bash
# Installs a real Ant Media Server in a writable Debian 13 tree, as Ant Media's installer does.
# usage: ant-media-zip.sh TARGET ant-media-server-….zip
#
# Ant Media builds for Java 17, but the oldest in Debian 13 is Java 21. The archive's unit has options that Java 21 does
# not know, so a drop-in makes Java ignore them.
set -euo pipefail
# shellcheck source=chroot.sh
source "$(dirname "${BASH_SOURCE[0]}")/chroot.sh"

target=$1 zip=$2

# Checks the archive before the slow steps.
listing=$(python3 -m zipfile -l "$zip" 2>/dev/null || true)
if [[ $listing != *$'\nant-media-server/antmedia.service '* ]]; then
  echo "$zip is not an Ant Media Server archive: it does not contain ant-media-server/antmedia.service." >&2
  exit 1
fi

unpack_archive() {
  touch "$target/run/server.zip"
  mount --bind "$zip" "$target/run/server.zip"
  run_in_target unzip -q /run/server.zip -d /run/unpacked
  mv "$target/run/unpacked/ant-media-server" "$target/usr/local/antmedia"
}

install_server() {
  local home=$target/usr/local/antmedia
  run_in_target useradd --system --home-dir /usr/local/antmedia --shell /bin/false antmedia
  # Ant Media's installer also creates these two. The archive may hold the conf/instanceId of another server.
  install -d "$target/var/log/antmedia"
  [[ -e $home/log ]] || ln -s /var/log/antmedia "$home/log"
  rm -f "$home/conf/instanceId"
  run_in_target chown -R antmedia:antmedia /usr/local/antmedia /var/log/antmedia
  install -m 0644 "$home/antmedia.service" "$target/etc/systemd/system/antmedia.service"
  install -D -m 0644 /dev/stdin "$target/etc/systemd/system/antmedia.service.d/java.conf" <<'UNIT'
[Service]
Environment=JAVA_HOME=/usr/lib/jvm/java-21-openjdk-amd64
Environment=JDK_JAVA_OPTIONS=-XX:+IgnoreUnrecognizedVMOptions
UNIT
  run_in_target systemctl --quiet enable antmedia.service
}

install_packages openjdk-21-jre-headless unzip curl libva-drm2 libva-x11-2 libvdpau1
unpack_archive
install_server
