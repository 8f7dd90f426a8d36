#!/usr/bin/env bash
# Installs Valkey as the cluster database, with a password and an append-only file, and makes it listen on the private address.
# usage: install-valkey.sh PRIVATE_ADDRESS < password
source "$(dirname "$0")/prelude.sh"
address=$1
config=/etc/valkey/cluster.conf

configure_valkey() {
  local new
  new=$(mktemp /etc/valkey/cluster.XXXXXX)
  chown root:valkey "$new"
  chmod 0640 "$new"
  cat >"$new" <<END
bind 127.0.0.1 $address
requirepass "$password"
# The registry must survive a restart and never lose a node to memory pressure.
appendonly yes
maxmemory-policy noeviction
END
  grep -qxF "include $config" /etc/valkey/valkey.conf || echo "include $config" >>/etc/valkey/valkey.conf
  if [[ -z $changed_by_hand ]] && cmp -s "$new" "$config" && systemctl --quiet is-active valkey-server; then
    rm "$new"
  else
    mv "$new" "$config"
    systemctl unmask --quiet valkey-server
    systemctl enable --quiet valkey-server
    systemctl restart valkey-server ||
      journalctl --unit valkey-server --lines 10 --no-pager --output cat | fail "Valkey does not start. The end of its log:"
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

wait_for_valkey() {
  until printf 'AUTH "%s"\nPING\n' "$password" | valkey-cli -h "$address" 2>/dev/null | grep -qx PONG; do
    if ((SECONDS > 250)); then
      tail -n 10 /var/log/valkey/valkey-server.log | fail "Valkey does not answer at $address. The end of its log:"
    fi
    sleep 0.5
  done
}

read -r password
# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
install_packages valkey-server valkey-tools
keep_restarting
configure_valkey
wait_for_valkey
save_record <<END
package valkey-server
package valkey-tools
unit valkey-server.service
file /etc/systemd/system/valkey-server.service.d/restart.conf
secret $config
lines /etc/valkey/valkey.conf ^include $config$
END
echo "Valkey answers at $address:6379"
