#!/usr/bin/env bash
# Installs Valkey as the cluster registry, with an append-only file, and makes it listen on the private address.
# set-registry-password.sh gives it the nodes' password.
# Prints the registry's id in the last line. When the id is new, the nodes have to register their streams again.
# usage: install-valkey.sh PRIVATE_ADDRESS
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"
address=$1
config=/etc/valkey/cluster.conf

configure_valkey() {
  local new
  new=$(mktemp /etc/valkey/cluster.XXXXXX)
  chown root:valkey "$new"
  chmod 0640 "$new"
  cat >"$new" <<END
bind 127.0.0.1 $address
aclfile $users
# The registry must survive a restart and never lose a node to memory pressure.
appendonly yes
maxmemory-policy noeviction
END
  grep -qxF "include $config" /etc/valkey/valkey.conf || echo "include $config" >>/etc/valkey/valkey.conf
  create_users
  if [[ -z $changed_by_hand ]] && cmp -s "$new" "$config" && systemctl --quiet is-active valkey-server &&
    [[ $(ask_once PING) != NOAUTH* ]]; then
    rm "$new"
  else
    mv "$new" "$config"
    systemctl unmask --quiet valkey-server
    systemctl enable --quiet valkey-server
    restart_valkey
  fi
}

# Creates the scripts' user. Nodes keep the passwords that they have.
create_users() {
  local known
  if [[ ! -s $operator_password_file ]]; then
    (umask 077 && print_random >"$operator_password_file.new")
    mv "$operator_password_file.new" "$operator_password_file"
  fi
  if ! grep -qxF "$(print_operator)" "$users" 2>/dev/null; then
    mapfile -t known < <(list_passwords)
    write_users "${known[@]}"
  fi
}

# At boot, Valkey may start before its address exists, and systemd would stop retrying.
keep_restarting() {
  add_unit_file valkey-server.service.d/restart.conf <<END
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0
[Service]
Restart=always
RestartSec=2
END
}

# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
install_packages valkey-server valkey-tools
keep_restarting
configure_valkey
wait_for_valkey
id=$(printf 'SET %s %s NX\nGET %s\n' "$registry_key" "$(print_random)" "$registry_key" | ask_valkey | tail -n 1)
[[ $id =~ ^[0-9a-f]{32}$ ]] || fail "Valkey does not store the registry's id: $id" </dev/null
save_record <<END
package valkey-server
package valkey-tools
unit valkey-server.service
file /etc/systemd/system/valkey-server.service.d/restart.conf
secret $config
lines /etc/valkey/valkey.conf ^include $config$
END
echo "Valkey answers at $address:6379"
echo "Registry $id"
