#!/usr/bin/env bash
# Installs HAProxy and certbot and makes HAProxy ready to be given its configuration and a certificate.
# usage: install-haproxy.sh DOMAIN
source "$(dirname "$0")/prelude.sh"
domain=$1

# HAProxy does not start without a certificate, and the ACME server's challenge needs HAProxy.
make_placeholder_certificate() {
  local pem=/etc/haproxy/certs/$domain.pem directory
  install -d -m 0700 /etc/haproxy/certs
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

# The credentials stay out of haproxy.cfg, which is shown in reviews: a second file that HAProxy loads beside it.
load_credentials_file() {
  local credentials=/etc/haproxy/credentials.cfg defaults=/etc/default/haproxy
  local options='EXTRAOPTS="-S /run/haproxy-master.sock -f /etc/haproxy/credentials.cfg"'
  [[ -e $credentials ]] || install -m 0600 /dev/null "$credentials"
  grep -qxF "$options" "$defaults" || echo "$options" >>"$defaults"
  if ! tr '\0' ' ' <"/proc/$(systemctl show --property MainPID --value haproxy)/cmdline" | grep -qF "$credentials"; then
    systemctl restart haproxy
  fi
}

install_packages haproxy certbot openssl socat curl
make_placeholder_certificate
load_credentials_file
echo "$(haproxy -v | head -n 1 | cut -d ' ' -f 1-3), $(certbot --version 2>/dev/null)"
