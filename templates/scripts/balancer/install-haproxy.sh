#!/usr/bin/env bash
# Installs HAProxy and certbot, and starts HAProxy with a placeholder certificate. Other scripts bring its configuration and certificate.
# usage: install-haproxy.sh DOMAIN [PACKAGE...]      packages that later scripts of this machine need
source "$(dirname "$0")/prelude.sh"
domain=$1
later=("${@:2}")
packages=(haproxy certbot openssl socat curl jq iproute2 prometheus-node-exporter)

# HAProxy does not start without a certificate, and the ACME challenge goes through HAProxy.
create_placeholder_certificate() {
  local pem=/etc/haproxy/certs/cluster.pem directory
  install -d -m 0700 -o root -g root /etc/haproxy/certs
  [[ -s $pem ]] && return
  directory=$(mktemp -d /etc/haproxy/placeholder.XXXXXX)
  (
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=placeholder" \
      -addext "subjectAltName=DNS:$domain" -keyout "$directory/key" -out "$directory/certificate" 2>/dev/null
    cat "$directory/certificate" "$directory/key" >"$directory/pem"
  )
  mv "$directory/pem" "$pem"
  rm -r "$directory"
}

# Credentials are in a second file that HAProxy loads, because haproxy.cfg is shown in reviews.
load_credentials_file() {
  local credentials=/etc/haproxy/credentials.cfg defaults=/etc/default/haproxy
  [[ -e $credentials ]] || install -m 0600 /dev/null "$credentials"
  write_file "$defaults" <<<"EXTRAOPTS=\"-S /run/haproxy-master.sock -f $credentials\""
  enable_units haproxy
  if ! tr '\0' ' ' 2>/dev/null <"/proc/$(systemctl show --property MainPID --value haproxy)/cmdline" | grep -qF "$credentials"; then
    # HAProxy does not start while other files of it are broken. The scripts that write those files start it later.
    systemctl restart haproxy || [[ -s $credentials ]]
  fi
}

# After a reboot in the middle of an update HAProxy starts with the last good configuration.
restore_config_before_start() {
  add_unit_file haproxy.service.d/last-good.conf <<'END'
[Service]
ExecStartPre=-/usr/local/lib/ant-media-cluster/restore-haproxy-config.sh before-start
END
}

# Creates the ticket keys before HAProxy starts and rotates them twice a day. Workers share the file, so TLS sessions resume after a reload.
schedule_ticket_keys() {
  add_unit_file haproxy-ticket-keys.service <<'END'
[Unit]
Description=TLS session ticket keys of HAProxy
Before=haproxy.service

[Service]
Type=oneshot
ExecStart=/usr/local/lib/ant-media-cluster/rotate-ticket-keys.sh

[Install]
WantedBy=haproxy.service
END
  add_unit_file haproxy-ticket-keys.timer <<'END'
[Unit]
Description=New TLS session ticket keys for HAProxy twice a day

[Timer]
OnActiveSec=12h
OnUnitActiveSec=12h

[Install]
WantedBy=timers.target
END
  [[ -s /run/haproxy-tls/ticket-keys ]] || systemctl start haproxy-ticket-keys.service
  enable_units haproxy-ticket-keys.service
  start_units haproxy-ticket-keys.timer
}

# Ends sessions on nodes that no longer respond.
schedule_connection_closing() {
  add_unit_file close-dead-connections.service <<'END'
[Unit]
Description=Closes the connections to nodes that do not respond
After=haproxy.service

[Service]
ExecStart=/usr/local/lib/ant-media-cluster/close-dead-connections.sh
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
END
  start_units close-dead-connections.service
}

# Restores damaged files before a renewal, and deploys the certificate after it, also if the deployment of an earlier one failed.
configure_renewals() {
  add_unit_file certbot.service.d/deploy.conf <<'END'
[Service]
ExecStartPre=/usr/local/lib/ant-media-cluster/check-disk-space.sh
ExecStartPre=/usr/local/lib/ant-media-cluster/certificate-store.sh restore
ExecStopPost=/usr/local/lib/ant-media-cluster/deploy-certificate.sh
END
}

# HAProxy serves these metrics on port 6080. The state of certbot.service reports a failed renewal even when the disk is full.
configure_metrics() {
  add_unit_file prometheus-node-exporter.service.d/options.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/bin/prometheus-node-exporter --web.listen-address=127.0.0.1:9100 --collector.systemd \
  --collector.systemd.unit-include=(certbot[.](service|timer)|haproxy[.]service)
END
}

# Removes the standby of a registry that the cluster had.
remove_standby() {
  [[ -e /etc/valkey/cluster.conf ]] || return 0
  systemctl --quiet disable --now keep-registry.service valkey-server.service
  rm -rf /etc/systemd/system/keep-registry.service /etc/valkey/cluster.conf /var/lib/valkey/appendonlydir \
    /etc/valkey/users.acl /etc/valkey/{operator,replication}-password "$records"/{install-valkey,set-registry-password}
  systemctl daemon-reload
}

# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
restore_config_before_start
configure_metrics
configure_renewals
install_packages "${packages[@]}" "${later[@]}"
[[ " ${later[*]} " == *" valkey-server "* ]] || remove_standby
create_placeholder_certificate
schedule_ticket_keys
load_credentials_file
schedule_connection_closing
start_units certbot.timer prometheus-node-exporter
[[ -z $changed_by_hand ]] || systemctl restart haproxy-ticket-keys.timer certbot.timer prometheus-node-exporter close-dead-connections
save_record <<END
$(printf 'package %s\n' "${packages[@]}")
unit haproxy.service
unit haproxy-ticket-keys.timer
enabled haproxy-ticket-keys.service
unit certbot.timer
unit close-dead-connections.service
unit prometheus-node-exporter.service
file /etc/default/haproxy
file /etc/haproxy/certs
file /etc/systemd/system/haproxy.service.d/last-good.conf
file /etc/systemd/system/haproxy-ticket-keys.service
file /etc/systemd/system/haproxy-ticket-keys.timer
file /etc/systemd/system/certbot.service.d/deploy.conf
file /etc/systemd/system/close-dead-connections.service
file /etc/systemd/system/prometheus-node-exporter.service.d/options.conf
END
echo "$(haproxy -v | head -n 1 | cut -d ' ' -f 1-3), $(certbot --version 2>/dev/null)"
