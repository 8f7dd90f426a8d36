#!/usr/bin/env bash
# Builds the machine image `debian-13` in a folder: the packages of Debian's official cloud image, without those for hardware.
# usage: debian-13.sh TARGET
# environment:
#   SOURCES    path of the sources.list to install from and to leave in the image; if the file is empty, mmdebstrap's default
#   APT_CONF   path of the apt.conf that those sources need, also left in the image
set -euo pipefail
target=$1

packages=(
  ca-certificates cloud-init curl dbus debian-archive-keyring iproute2 iputils-ping less locales netbase
  openssh-server procps python3 sudo systemd systemd-sysv
)

install_packages() {
  local include options=(--skip=cleanup/apt/lists)
  include=$(IFS=,; echo "${packages[*]}")
  while IFS= read -r line; do
    [[ -n "$line" ]] && options+=("--aptopt=$line")
  done <"$APT_CONF"
  if [[ -s "$SOURCES" ]]; then
    mmdebstrap --mode=root --variant=minbase --include="$include" "${options[@]}" trixie "$target" "$SOURCES"
  else
    # Ubuntu does not trust Debian's keys by default.
    mmdebstrap --mode=root --variant=minbase --include="$include" "${options[@]}" \
      --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$target"
  fi
}

configure_apt() {
  rm -f "$target/etc/apt/apt.conf.d/99mmdebstrap"
  cp "$APT_CONF" "$target/etc/apt/apt.conf.d/90host"
  printf 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n' >"$target/etc/apt/apt.conf.d/91cloud"
  # The first `apt-get update` of a machine finds the package lists of the image, and fetches those that have changed since. Without
  # it, the machine has none, as on EC2.
  mv "$target/var/lib/apt/lists" "$target/var/lib/apt/lists-of-image"
  rm -rf "$target"/var/lib/apt/lists-of-image/{lock,partial,auxfiles}
  mkdir "$target/var/lib/apt/lists"
  cat >"$target/etc/apt/apt.conf.d/92lists" <<'CONF'
APT::Update::Pre-Invoke { "cp --update=none --preserve=timestamps /var/lib/apt/lists-of-image/* /var/lib/apt/lists/"; };
Acquire::PDiffs "false";
CONF
  # Nobody answers debconf's questions, and no machine loses its power.
  rm "$target/etc/apt/apt.conf.d/70debconf"
  echo force-unsafe-io >"$target/etc/dpkg/dpkg.cfg.d/90cloud"
}

configure_cloud_init() {
  # `admin` is the user of Debian's images on EC2. The network is configured before the machine boots.
  # Leaves out modules for hardware, for other distributions and for the choice of a mirror.
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

disable_background_jobs() {
  # They are of use only on long-lived machines, or to people who log in. Without apt's timers no automatic update holds dpkg's lock or
  # the lock of the package lists while a script installs packages, and none replaces a library under a service, as on EC2. In their
  # place test_configure_system.py holds dpkg's lock. Debian's images have no needrestart, so nothing here restarts services either.
  local unit
  sed -i /pam_motd/d "$target/etc/pam.d/sshd"
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    systemd-pstore.service getty@tty1.service cloud-init-hotplugd.socket; do
    systemctl --root="$target" --quiet disable "$unit" 2>/dev/null || true
  done
  systemctl --root="$target" --quiet mask console-getty.service  # there is no console login
}

mask_generators() {
  # systemd runs all generators each time it reads its units. These look for disks, consoles and boot options that no machine here has.
  local name
  mkdir -p "$target/etc/systemd/system-generators"
  for name in debug fstab getty gpt-auto hibernate-resume rc-local run ssh system-update tpm2; do
    ln -s /dev/null "$target/etc/systemd/system-generators/systemd-$name-generator"
  done
}

enable_cloud_init() {
  # Its own generator looks for a data source, which every machine here has, and then does this.
  systemctl --root="$target" --quiet add-wants multi-user.target cloud-init.target
  install -m 0755 /dev/stdin "$target/etc/systemd/system-generators/cloud-init-generator" <<'SH'
#!/bin/sh
[ -e /run/cloud-init/enabled ] || { mkdir -p /run/cloud-init && : >/run/cloud-init/enabled; }
SH
}

keep_caches() {
  # Without these files the first boot would make the caches of the linker and of the journal's catalogue again.
  touch --reference="$target/usr" "$target/etc/.updated" "$target/var/.updated"
}

remove_identity() {
  # Each machine creates its host keys, machine id and host name at its first boot.
  rm -f "$target"/etc/ssh/ssh_host_*_key* "$target/var/lib/dbus/machine-id" "$target/etc/hostname" "$target/etc/resolv.conf"
  : >"$target/etc/machine-id"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$target/etc/hosts"
}

install_packages
configure_apt
configure_cloud_init
disable_background_jobs
mask_generators
enable_cloud_init
keep_caches
remove_identity
