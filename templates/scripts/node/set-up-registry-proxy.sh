#!/usr/bin/env bash
# Sets up the proxy through which Ant Media Server on this node reaches the cluster registry, at 127.0.0.1:6379. It leads to the
# database, and to the standby on the load balancer while that is the registry's primary (keep-registry.py).
# usage: set-up-registry-proxy.sh DATABASE STANDBY [PACKAGE...]
#   DATABASE and STANDBY are their private addresses, and PACKAGEs are those that later scripts of this machine need
source "$(dirname "$0")/prelude.sh"
database=$1 standby=$2
later=("${@:3}")
config=/etc/haproxy/haproxy.cfg

print_config() {
  cat <<END
# Written by the deployment. The next one overwrites it: change templates/scripts/node/set-up-registry-proxy.sh instead.
global
    log /dev/log local0 notice
    user haproxy
    group haproxy
    stats socket /run/haproxy/admin.sock mode 600 level admin
    # Each application has up to 64 connections.
    maxconn 8000

defaults
    mode tcp
    log global
    # A database that does not answer is tried once a second, for longer than it takes until the standby leads. Then
    # the connection goes there.
    timeout connect 1s
    retries 10
    option redispatch 1
    # Ant Media Server checks an idle connection every 30 s.
    timeout client 10m
    timeout server 10m

listen registry
    bind 127.0.0.1:6379
    timeout check 1s
    option tcp-check
    tcp-check send "AUTH probe -\r\nROLE\r\nQUIT\r\n"
    tcp-check expect string master
    # The database has no check: the standby's role decides. A change of it ends all connections to the other one, and Ant Media
    # Server connects again. A standby that has handed over refuses connections, which counts as well.
    server standby $standby:6379 check inter 1s fall 1 rise 1 on-marked-up shutdown-backup-sessions on-marked-down shutdown-sessions observe layer4 error-limit 1 on-error mark-down
    server database $database:6379 backup
END
}

apply_config() {
  local text before
  text=$(print_config)
  before=$(cat "$config" 2>/dev/null) || true
  if [[ $text != "$before" || -n $changed_by_hand ]] || ! systemctl --quiet is-active haproxy; then
    write_file "$config" <<<"$text"
    haproxy -c -q -f "$config" || fail "HAProxy does not take $config" </dev/null
    enable_units haproxy
    # Not a reload: the old worker would keep connections to the former database.
    systemctl restart haproxy ||
      journalctl --unit haproxy --lines 10 --no-pager --output cat | fail "HAProxy does not start. The end of its log:"
  fi
}

# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
install_packages haproxy "${later[@]}"
apply_config
save_record <<END
package haproxy
unit haproxy.service
file $config
END
echo "The cluster registry is at 127.0.0.1:6379"
