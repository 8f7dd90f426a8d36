#!/usr/bin/env bash
# Installs Valkey as the cluster database: password, append-only file, reachable at the private address.
# usage: install-valkey.sh PRIVATE_ADDRESS < password
source "$(dirname "$0")/prelude.sh"
address=$1
own=/etc/valkey/cluster.conf

configure() {
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
  grep -qxF "include $own" /etc/valkey/valkey.conf || echo "include $own" >>/etc/valkey/valkey.conf
  if [[ -z $changed_by_hand ]] && cmp -s "$new" "$own" && systemctl --quiet is-active valkey-server; then
    rm "$new"
  else
    mv "$new" "$own"
    systemctl unmask --quiet valkey-server
    systemctl enable --quiet valkey-server
    systemctl restart valkey-server ||
      journalctl --unit valkey-server --lines 10 --no-pager --output cat | fail "Valkey does not start; its log ends:"
  fi
}

# At a boot the address may come later than the service; its unit would give up.
keep_trying_to_start() {
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

wait_until_it_answers() {
  until printf 'AUTH "%s"\nPING\n' "$password" | valkey-cli -h "$address" 2>/dev/null | grep -qx PONG; do
    if ((SECONDS > 250)); then
      tail -n 10 /var/log/valkey/valkey-server.log | fail "Valkey does not answer at $address; its log ends:"
    fi
    sleep 0.5
  done
}

read -r password
# Before it is put right again.
changed_by_hand=$(as_kept || echo yes)
install_packages valkey-server valkey-tools
keep_trying_to_start
configure
wait_until_it_answers
keep <<END
package valkey-server
package valkey-tools
unit valkey-server.service
file /etc/systemd/system/valkey-server.service.d/restart.conf
secret $own
lines /etc/valkey/valkey.conf ^include $own$
END
echo "Valkey answers at $address:6379"
