#!/usr/bin/env bash
# Installs Ant Media Server on this machine, as Ant Media's installer does, and enables its unit without starting it.
# Needs root on Debian or Ubuntu. An interrupted run can be repeated; if a server is installed, nothing changes.
# usage: install-ant-media-server.sh ant-media-server-….zip
#
# Left out of what the installer does: the packages and the sudo rule of enable_ssl.sh, because a load balancer terminates TLS.
set -euo pipefail

zip=$1
readonly home=/usr/local/antmedia logs=/var/log/antmedia

# Checks the archive before the slow steps.
check_archive() {
  local listing
  listing=$(python3 -m zipfile -l "$zip" 2>/dev/null || true)
  if [[ $listing != *$'\nant-media-server/antmedia.service '* ]]; then
    echo "$zip is not an Ant Media Server archive: it does not contain ant-media-server/antmedia.service." >&2
    exit 1
  fi
}

# Ant Media builds for Java 17. Debian 13 has none: its oldest is Java 21.
choose_java() {
  local version
  for version in 17 21; do
    if [[ $(apt-cache madison "openjdk-$version-jre-headless") ]]; then
      echo "$version"
      return
    fi
  done
  echo "No package openjdk-17-jre-headless or openjdk-21-jre-headless is available; add a package source that has one." >&2
  return 1
}

# The server's create_app.sh needs unzip, and the panel needs zip to create an application.
install_packages() {
  apt-get -o DPkg::Lock::Timeout=120 update --quiet
  java=$(choose_java)
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install --quiet --yes --no-install-recommends \
    "openjdk-$java-jre-headless" unzip zip curl logrotate libva-drm2 libva-x11-2 libvdpau1
}

# The unit reads native libraries, which WebRTC needs, from lib/native.
use_native_libraries() {
  local libraries
  libraries=$1/lib/native-linux-$(uname -m)
  if [[ -d $libraries ]]; then
    mkdir -p "$1/lib/native"
    cp -a "$libraries/." "$1/lib/native/"
    rm -r "$1"/lib/native-*
  else
    echo "$zip has no native libraries for $(uname -m): WebRTC does not work." >&2
  fi
}

unpack_archive() {
  rm -rf "$home.new"
  unzip -q "$zip" -d "$home.new"
  use_native_libraries "$home.new/ant-media-server"
  # They belong to another server, if the archive was made of an installed one.
  rm -rf "$home.new/ant-media-server/conf/instanceId" "$home.new/ant-media-server/log"
  ln -s "$logs" "$home.new/ant-media-server/log"
}

create_user() {
  getent passwd antmedia >/dev/null || useradd --system --home-dir "$home" --shell /bin/false antmedia
}

install_logs() {
  install -d -o antmedia -g antmedia "$logs"
  # The server keeps its log files open, so logrotate copies and truncates them.
  cat >/etc/logrotate.d/antmedia <<END
$logs/antmedia-error.log $logs/0.0.0.0_access*.log {
    su antmedia antmedia
    daily
    maxsize 50M
    rotate 7
    compress
    delaycompress
    copytruncate
    missingok
    notifempty
}
END
}

install_unit() {
  local drop_in=/etc/systemd/system/antmedia.service.d/java.conf
  install -m 0644 "$home.new/ant-media-server/antmedia.service" /etc/systemd/system/antmedia.service
  install -D -m 0644 /dev/stdin "$drop_in" <<END
[Service]
Environment=JAVA_HOME=/usr/lib/jvm/java-$java-openjdk-$(dpkg --print-architecture)
END
  if ((java > 17)); then
    # The unit has options for Java 17, which a newer Java refuses.
    echo "Environment=JDK_JAVA_OPTIONS=-XX:+IgnoreUnrecognizedVMOptions" >>"$drop_in"
  fi
  [[ ! -d /run/systemd/system ]] || systemctl daemon-reload
  systemctl --quiet enable antmedia.service
}

# The last step: until then the next run starts again.
move_into_place() {
  chown -R antmedia:antmedia "$home.new/ant-media-server"
  mv "$home.new/ant-media-server" "$home"
  rmdir "$home.new"
}

check_archive
if [[ -e $home ]]; then
  echo "Ant Media Server is installed in $home; nothing changes."
  exit
fi
install_packages
create_user
install_logs
unpack_archive
install_unit
move_into_place
