#!/usr/bin/env bash
# Makes the machine image `debian-13` in the folder TARGET: what Debian's official cloud image is made of,
# less what a machine without hardware has no use for.
#   SOURCES    sources.list to install from (empty: mmdebstrap's own choice), left in the image
#   APT_CONF   apt.conf that those sources need, left in the image
set -euo pipefail
target=$1

packages=(
  ca-certificates cloud-init curl dbus debian-archive-keyring iproute2 iputils-ping less locales netbase
  openssh-server procps python3 sudo systemd systemd-sysv
)

install_packages() {
  local include options=()
  include=$(IFS=,; echo "${packages[*]}")
  while IFS= read -r line; do
    [[ -n "$line" ]] && options+=("--aptopt=$line")
  done <"$APT_CONF"
  if [[ -s "$SOURCES" ]]; then
    mmdebstrap --mode=root --variant=minbase --include="$include" "${options[@]}" trixie "$target" "$SOURCES"
  else
    # Ubuntu trusts no key of Debian's until it is told to.
    mmdebstrap --mode=root --variant=minbase --include="$include" "${options[@]}" \
      --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$target"
  fi
}

configure_apt() {
  rm -f "$target/etc/apt/apt.conf.d/99mmdebstrap"
  cp "$APT_CONF" "$target/etc/apt/apt.conf.d/90host"
  printf 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n' >"$target/etc/apt/apt.conf.d/91cloud"
}

configure_cloud_init() {
  # `admin` is the user of Debian's images on EC2. The network is there before the machine boots.
  # cc_… modules that configure hardware, other distributions or a mirror of cloud-init's own choice have nothing to do here.
  cat >"$target/etc/cloud/cloud.cfg.d/90_cloud.cfg" <<'YAML'
datasource_list: [NoCloud]
network: {config: disabled}
system_info:
  default_user:
    name: admin
    lock_passwd: true
    gecos: Debian
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
cloud_init_modules: [bootcmd, write_files, set_hostname, update_hostname, update_etc_hosts, ca_certs, users_groups, ssh]
cloud_config_modules: [set_passwords, ntp, timezone, runcmd]
cloud_final_modules: [package_update_upgrade_install, write_files_deferred, scripts_vendor, scripts_per_once,
  scripts_per_boot, scripts_per_instance, scripts_user, final_message, power_state_change]
YAML
}

quieten() {
  # Work that a long-lived machine wants and one that lives for an hour does not.
  local unit
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    systemd-pstore.service getty@tty1.service cloud-init-hotplugd.socket; do
    systemctl --root="$target" --quiet disable "$unit" 2>/dev/null || true
  done
  systemctl --root="$target" --quiet mask console-getty.service  # nobody logs in at the console
}

make_anonymous() {
  # Host keys, ids and names are the machine's own, made when it boots for the first time.
  rm -f "$target"/etc/ssh/ssh_host_*_key* "$target/var/lib/dbus/machine-id" "$target/etc/hostname" "$target/etc/resolv.conf"
  : >"$target/etc/machine-id"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$target/etc/hosts"
}

install_packages
configure_apt
configure_cloud_init
quieten
make_anonymous
