#!/usr/bin/env bash
# Installs Valkey with an append-only file, and makes it listen on the private address. It is the cluster registry on the database
# machine, and the registry's standby on the load balancer: a replica of the database, which keep-registry.py makes the primary
# while the database is away. set-registry-password.sh gives it the nodes' password.
# On the database, prints the registry's id in the last line. When the id is new, the nodes have to register their streams again.
# usage: install-valkey.sh database|standby DATABASE STANDBY < password of the replication
#        DATABASE and STANDBY are the private addresses
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"
role=$1 database=$2 standby=$3
address=${!role}
config=/etc/valkey/cluster.conf
IFS= read -r replication_password

configure_valkey() {
  local new restart=yes
  new=$(mktemp /etc/valkey/cluster.XXXXXX)
  chown root:valkey "$new"
  chmod 0640 "$new"
  cat >"$new" <<END
bind 127.0.0.1 $address
aclfile $users
# The registry must survive a restart and never lose a node to memory pressure.
appendonly yes
maxmemory-policy noeviction
masteruser replication
masterauth $replication_password
END
  [[ $role == database ]] || echo "replicaof $database 6379" >>"$new"
  grep -qxF "include $config" /etc/valkey/valkey.conf || echo "include $config" >>/etc/valkey/valkey.conf
  create_users
  if [[ -z $changed_by_hand ]] && runs_with "$new" && systemctl --quiet is-active valkey-server &&
    [[ $(ask_once PING) != NOAUTH* && $users_before == "$(cat "$users")" ]]; then
    restart=
  fi
  mv "$new" "$config"
  if [[ -n $restart ]]; then
    enable_units valkey-server
    restart_valkey
  fi
}

# True if Valkey runs with the configuration in the file $1. To a standby that leads, the database's address does not matter:
# keep-registry.py makes it a replica.
runs_with() {
  cmp -s "$1" "$config" || {
    [[ $(ask_valkey <<<ROLE | head -n 1) == master ]] &&
      cmp -s <(grep -v ^replicaof "$1") <(grep -v ^replicaof "$config")
  }
}

# Creates the program's users. Nodes keep the passwords that they have: a new database has them from the standby, which may hand
# over before set-registry-password.sh runs.
create_users() {
  local known
  (umask 077 && printf '%s\n' "$replication_password" >"$replication_password_file.new")
  mv "$replication_password_file.new" "$replication_password_file"
  if [[ ! -s $operator_password_file ]]; then
    (umask 077 && print_random >"$operator_password_file.new")
    mv "$operator_password_file.new" "$operator_password_file"
  fi
  users_before=$(cat "$users" 2>/dev/null) || true
  mapfile -t known < <(list_passwords)
  if [[ ${#known[@]} == 0 && $role == database ]] && standby_leads; then
    mapfile -t known < <(printf 'AUTH replication %s\nACL GETUSER default\n' "$replication_password" |
      timeout 5 valkey-cli -h "$standby" 2>/dev/null | grep -xE '[0-9a-f]{64}')
  fi
  if [[ ${#known[@]} == 0 || $(tail -n +2 <<<"$users_before") != "$(print_own_users)" ]]; then
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

keep_registry() {
  add_unit_file keep-registry.service <<END
[Unit]
Description=Leads the cluster registry while the database is away
After=valkey-server.service

[Service]
ExecStart=/usr/local/lib/ant-media-cluster/keep-registry.py $database $standby
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
END
  start_units keep-registry.service
  # Also with a new password.
  systemctl restart keep-registry.service
}

# True if the standby leads.
standby_leads() { [[ $(printf 'AUTH probe -\nROLE\n' | timeout 5 valkey-cli -h "$standby" 2>/dev/null | sed -n 2p) == master ]]; }

# Sets the id of the registry if it has none. An empty database first gets the data of the standby, if that leads.
identify_registry() {
  local end=$((SECONDS + 200))
  until id=$(ask_once "GET $registry_key" || true) && [[ $id =~ ^[0-9a-f]{32}$ ]]; do
    if standby_leads; then
      # keep-registry.py does this as well, unless the database has another address than before.
      id=$(ask_once "REPLICAOF $standby 6379")
    else
      # Refused while the database still is the standby's replica.
      id=$(ask_once "SET $registry_key $(print_random) NX")
    fi
    ((SECONDS < end)) || fail "Valkey does not store the registry's id: $id" </dev/null
    sleep 0.5
  done
}

# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
keep_restarting
# install-haproxy.sh has installed them on the load balancer.
install_packages valkey-server valkey-tools
configure_valkey
wait_for_valkey
if [[ $role == database ]]; then
  identify_registry
else
  keep_registry
fi
{
  cat <<END
package valkey-server
package valkey-tools
unit valkey-server.service
file /etc/systemd/system/valkey-server.service.d/restart.conf
secret $config
lines /etc/valkey/valkey.conf ^include $config$
END
  [[ $role == database ]] || printf '%s\n' "unit keep-registry.service" "file /etc/systemd/system/keep-registry.service"
} | save_record
echo "Valkey answers at $address:6379"
[[ $role == standby ]] || echo "Registry $id"
