#!/usr/bin/env bash
# Installs Ant Media Server from a zip, as Ant Media's installer does, and enables its unit without starting it.
# An installed server of another zip is upgraded: this stops it, and keeps its settings, databases and recordings. The old server
# stays in /usr/local/antmedia.previous until the new one is ready and the caller deletes it. Until then its zip puts it back,
# without a download.
# Needs root on Debian or Ubuntu. An interrupted run can be repeated; if the server of this zip is installed, nothing changes.
# usage: install-ant-media-server.sh SHA256 cluster|standalone < URL
#
# Left out of what the installer does: the packages and the sudo rule of enable_ssl.sh, because a load balancer terminates TLS.
# Not kept in an upgrade, as with `-r true` of the installer: plugins, conf/instanceId and changes of the applications' pages.
source "$(dirname "$0")/prelude.sh"
wanted=$1 mode=$2
IFS= read -r url
readonly home=/usr/local/antmedia logs=/var/log/antmedia
readonly new=$home.new previous=$home.previous
readonly zip=/var/lib/ant-media-cluster/ant-media-server.zip

# Prints the checksum of the zip that a server was installed from.
read_checksum() { cat "$1/zip.sha256" 2>/dev/null || true; }

stop_server() {
  # There is no systemd while a machine image is built.
  [[ ! -d /run/systemd/system ]] || systemctl stop antmedia
}

# If the server of the last upgrade never became ready, its data is of no use but for recordings.
put_back_previous_server() {
  [[ -d $previous && $(read_checksum "$home") != "$wanted" ]] || return 0
  echo "Putting back the server that ran before the last upgrade"
  stop_server
  link_recordings "$home" "$previous"
  # After an interruption, the rest of this folder must not pass for an installed server.
  rm -f "$home/zip.sha256"
  rm -rf "$home"
  mv "$previous" "$home"
}

# curl gets the URL on standard input: it may contain a key, and arguments are visible to every user of the machine.
download_zip() {
  local message checksum
  mkdir -p "$(dirname "$zip")"
  if ! message=$(printf 'url = "%s"\n' "$url" |
    curl --config - --fail --silent --show-error --location --retry 5 --retry-connrefused --connect-timeout 10 \
      --speed-limit 1 --speed-time 60 --output "$zip" 2>&1); then
    fail "The download of amsZip.url failed, so Ant Media Server is as it was: ${message##*$'\n'}" </dev/null
  fi
  checksum=$(sha256sum "$zip" | cut -d ' ' -f 1)
  if [[ $checksum != "$wanted" ]]; then
    fail "amsZip.sha256 is $wanted, but the file at amsZip.url has $checksum, so Ant Media Server is as it was. If this is the right file, give its checksum." </dev/null
  fi
}

# The server's create_app.sh needs unzip, and the panel needs zip to create an application.
install_tools() { install_packages unzip zip logrotate libva-drm2 libva-x11-2 libvdpau1; }

unpack_zip() {
  local unpacked=$new.zip
  rm -rf "$new" "$unpacked"
  if ! unzip -q "$zip" 'ant-media-server/*' -d "$unpacked" || [[ ! -e $unpacked/ant-media-server/antmedia.service ]]; then
    fail "The file at amsZip.url is not an archive of Ant Media Server: it does not contain ant-media-server/antmedia.service. Ant Media Server is as it was." </dev/null
  fi
  mv "$unpacked/ant-media-server" "$new"
  rmdir "$unpacked"
  # Only the Enterprise Edition contains this class. Without it a server in cluster mode does not start.
  if [[ $mode == cluster ]] && ! grep -rqsF --include='*.jar' io/antmedia/enterprise/cluster/TcpCluster.class "$new"; then
    fail "The file at amsZip.url is the Community Edition, which has no cluster mode. Give the zip of the Enterprise Edition, or one origin and no edges. Ant Media Server is as it was." </dev/null
  fi
  # They belong to another server, if the archive was made of an installed one.
  rm -rf "$new/conf/instanceId" "$new/log"
  ln -s "$logs" "$new/log"
  echo "$wanted" >"$new/zip.sha256"
}

# The unit reads native libraries, which WebRTC needs, from lib/native.
use_native_libraries() {
  local libraries
  libraries=$new/lib/native-linux-$(uname -m)
  if [[ -d $libraries ]]; then
    mkdir -p "$new/lib/native"
    cp -a "$libraries/." "$new/lib/native/"
    rm -r "$new"/lib/native-*
  else
    echo "The zip has no native libraries for $(uname -m): WebRTC does not work." >&2
  fi
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
  [[ ! -d /run/systemd/system ]] || start_units logrotate.timer
}

# Installs the Java of the unit's JAVA_HOME, or a newer one.
install_java() {
  local needed java
  needed=$(grep -oP 'java-\K[0-9]+(?=-openjdk)' "$new/antmedia.service" | head -n 1) || return 0
  java=$(choose_java "$needed")
  install_packages "openjdk-$java-jre-headless"
  write_java_settings "$needed" "$java" >"$new/java.conf"
}

# Prints the oldest installed or available version of Java that is not older than $1. Debian 13 has no Java 17.
choose_java() {
  local version versions=("$1")
  for version in 21 25; do
    ((version <= $1)) || versions+=("$version")
  done
  for version in "${versions[@]}"; do
    if is_installed "openjdk-$version-jre-headless"; then
      echo "$version"
      return
    fi
  done
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt-get update --quiet >/dev/null
  for version in "${versions[@]}"; do
    if [[ $(apt-cache madison "openjdk-$version-jre-headless") ]]; then
      echo "$version"
      return
    fi
  done
  fail "The server needs Java $1, but no package openjdk-$1-jre-headless or newer is available. Add a package source that has one." </dev/null
}

# Prints a drop-in of the unit.
write_java_settings() {
  echo "[Service]"
  echo "Environment=JAVA_HOME=/usr/lib/jvm/java-$2-openjdk-$(dpkg --print-architecture)"
  # The unit has options for its Java, which a newer one refuses.
  (($2 == $1)) || echo "Environment=JDK_JAVA_OPTIONS=-XX:+IgnoreUnrecognizedVMOptions"
}

# Each application keeps its settings and recordings, as with `-r true` of Ant Media's installer. New settings of the server get
# their default.
keep_data() {
  local app file
  for file in "$home"/webapps/*/WEB-INF/red5-web.properties; do
    [[ -e $file ]] || continue
    app=$(basename "${file%/WEB-INF/*}")
    # An application that the user created.
    [[ -d $new/webapps/$app ]] || "$new/create_app.sh" -n "$app" -p "$new" >/dev/null
    cp -p "$file" "$new/webapps/$app/WEB-INF/"
  done
  link_recordings "$home" "$new"
  find "$home" -maxdepth 1 -type f \( -name '*.db' -o -name '*.db.*' \) -exec cp -p -t "$new" {} +
  add_new_settings "$home/conf/red5.properties" "$new/conf/red5.properties"
  for file in jee-container.xml initialized {chain,privkey,fullchain}.pem {truststore,keystore}.jks; do
    [[ ! -e $home/conf/$file ]] || cp -p "$home/conf/$file" "$new/conf/"
  done
}

# Writes the settings of the file $1 to the file $2, with those that only $2 has.
add_new_settings() {
  local added
  added=$(awk -F = '/^[^#]*=/ { if (NR == FNR) known[$1]; else if (!($1 in known)) print }' "$1" "$2")
  cp -p "$1" "$2"
  [[ -z $added ]] || printf '\n%s\n' "$added" >>"$2"
}

# Adds the recordings of the server in $1 to the one in $2. Hard links take no time and no space.
link_recordings() {
  local streams target
  for streams in "$1"/webapps/*/streams; do
    target=$2/webapps/$(basename "${streams%/streams}")
    if [[ -L $streams ]]; then
      # The user's own storage.
      rm -rf "${target:?}/streams"
      cp -P "$streams" "$target/"
    elif [[ -d $streams && -d $target ]]; then
      mkdir -p "$target/streams"
      cp -alf "$streams/." "$target/streams/"
    fi
  done
}

check_mounts() {
  local mount
  if mount=$(cut -d ' ' -f 2 /proc/self/mounts | grep -m 1 "^$home/"); then
    fail "$mount is a mount in the server's folder, which an upgrade replaces. Mount it elsewhere, and make webapps/APPLICATION/streams a symbolic link to it. Ant Media Server is as it was." </dev/null
  fi
}

# Until the last step, the next run starts again.
move_into_place() {
  chown -R antmedia:antmedia "$new"
  if [[ -e $home ]]; then
    mv "$home" "$previous"
  fi
  mv "$new" "$home"
}

# Installs the unit of the server, and the drop-in for its Java if it needs one.
install_unit() {
  add_unit_file antmedia.service <"$home/antmedia.service"
  if [[ -e $home/java.conf ]]; then
    add_unit_file antmedia.service.d/java.conf <"$home/java.conf"
  else
    rm -f /etc/systemd/system/antmedia.service.d/java.conf
    systemctl daemon-reload
  fi
  systemctl --quiet enable antmedia.service
}

clean_up() {
  rm -rf "$zip" "$new" "$new.zip"
  # The server of a failed upgrade is as it was.
  [[ ! -e $home || $(read_checksum "$home") == "$wanted" ]] || systemctl start antmedia
}

put_back_previous_server
if [[ $(read_checksum "$home") != "$wanted" ]]; then
  trap clean_up EXIT
  check_mounts
  download_zip
  install_tools
  unpack_zip
  use_native_libraries
  install_java
  create_user
  install_logs
  if [[ -e $home ]]; then
    echo "Upgrading Ant Media Server"
    stop_server
    keep_data
  fi
  move_into_place
fi
install_unit
