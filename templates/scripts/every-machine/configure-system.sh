#!/usr/bin/env bash
# Configures apt, needrestart and the kernel of a machine. install-scripts.sh runs it: before the first installation of a package, and
# before any other script of the machine connects.
# usage: configure-system.sh
source "$(dirname "$0")/prelude.sh"
readonly needrestart=/etc/needrestart/conf.d/ant-media-cluster.conf
readonly apt=/etc/apt/apt.conf.d/90ant-media-cluster
readonly sysctl=/etc/sysctl.d/90-ant-media-cluster.conf

# After automatic updates, Ubuntu 24.04 restarts the services that use a replaced library (needrestart's apt hook), on all machines in
# the same hour. These hold sessions, and nobody has drained them. Debian's images have no needrestart.
keep_sessions() {
  write_file "$needrestart" <<'END'
$nrconf{override_rc}{qr(^(antmedia|haproxy|valkey-server)\.service$)} = 0;
END
}

# Automatic updates hold dpkg's lock for minutes. apt-get does not wait for it by default, in Ant Media's installer and in hooks neither.
wait_for_automatic_updates() { write_file "$apt" <<<'DPkg::Lock::Timeout "600";'; }

configure_connections() {
  {
    # EC2 forgets a connection that is silent for 350 s (Nitro v6: API reference, ConnectionTrackingConfiguration), such as that of a
    # long script, which sends nothing. sshd enables keepalives, but the kernel sends the first one after two hours.
    echo "net.ipv4.tcp_keepalive_time = 60"
    # To a machine that does not run, EC2 drops packets. The provider of Pulumi's commands has no timeout for a connection through
    # the load balancer (pulumi-command 1.2.1, connection.go), which would try for 134 s. This is 7 s; HAProxy's timeouts are shorter.
    [[ ! -e $(dirname "$0")/install-haproxy.sh ]] || echo "net.ipv4.tcp_syn_retries = 2"
  } | write_file "$sysctl"
  sysctl --quiet --load="$sysctl"
}

keep_sessions
wait_for_automatic_updates
configure_connections
save_record <<END
file $needrestart
file $apt
file $sysctl
END
