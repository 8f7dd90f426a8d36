#!/usr/bin/env bash
# Replaces the certificate of the running HAProxy, without a reload. If HAProxy rejects it, the previous one stays in service.
# usage: put-certificate.sh < PEM
#        The PEM holds the certificate chain, its leaf first, and the private key.
source "$(dirname "$0")/prelude.sh"
pem=/etc/haproxy/certs/cluster.pem

ask_haproxy() { socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock 2>/dev/null; }

# True if the running HAProxy has loaded the file. Fails if HAProxy runs but does not answer, unless haproxy.cfg has no socket.
certificate_is_loaded() {
  local loaded
  loaded=$(ask_haproxy <<<"show ssl cert") || ! systemctl --quiet is-active haproxy || ! grep -q admin.sock /etc/haproxy/haproxy.cfg ||
    fail "HAProxy runs but does not answer on its runtime socket. The previous certificate stays in service." </dev/null
  grep -qxF "$pem" <<<"$loaded"
}

print_fingerprint() { openssl x509 -noout -fingerprint -sha256 2>/dev/null; }

port_serves_certificate() {
  local served
  served=$(timeout 5 openssl s_client -connect "127.0.0.1:$1" </dev/null 2>/dev/null | print_fingerprint)
  [[ $served == "$(print_fingerprint <"$pem")" ]]
}

# Tries a busy port three times.
all_ports_serve_certificate() {
  local port
  for port in $(list_tls_ports); do
    port_serves_certificate "$port" || { sleep 1 && port_serves_certificate "$port"; } || { sleep 2 && port_serves_certificate "$port"; } || return
  done
}

roll_back() {
  ask_haproxy <<<"abort ssl cert $pem" >/dev/null || true
  [[ ! -s $previous ]] || mv "$previous" "$pem"
  fail "HAProxy rejected the certificate. The previous one stays in service. HAProxy reports:"
}

# Replaces the certificate through the runtime socket. HAProxy validates it first. No connection is cut and no old worker remains.
replace_in_running_haproxy() {
  local answer
  answer=$({ echo "set ssl cert $pem <<" && cat "$new" && echo; } | ask_haproxy) || true
  if [[ $answer != *"Transaction created"* && $answer != *"Transaction updated"* ]]; then
    roll_back <<<"${answer:-nothing. See journalctl -u haproxy}"
  fi
  mv "$new" "$pem"
  answer=$(ask_haproxy <<<"commit ssl cert $pem") || true
  [[ $answer == *Success* ]] || roll_back <<<"${answer:-nothing. See journalctl -u haproxy}"
  all_ports_serve_certificate || fail "HAProxy accepted the certificate, but not every port serves it." \
    "Run systemctl reload haproxy on the load balancer, then the update again." </dev/null
}

# Replaces the file only. HAProxy reads it at its next start or reload.
replace_file() {
  local message
  # The certificate is validated only if HAProxy accepts its other files.
  validate_config() { haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/credentials.cfg 2>&1; }
  if message=$(validate_config); then
    mv "$new" "$pem"
    message=$(validate_config) || roll_back <<<"$message"
  else
    mv "$new" "$pem"
  fi
}

# Writes the new certificate and a copy of the previous one to /etc/haproxy: HAProxy may load every file in certs/.
# Removes empty lines, which would end the command on HAProxy's socket.
write_new_and_previous() {
  install -d -m 0700 "${pem%/*}" && new=$(mktemp /etc/haproxy/certificate.XXXXXX) && previous=$(mktemp /etc/haproxy/certificate.XXXXXX) &&
    sed '/^[[:space:]]*$/d' >"$new" && { [[ ! -e $pem ]] || cp -p "$pem" "$previous"; }
}

exec 9>/run/lock/haproxy
flock -w 120 9 || fail "Another process has held the lock /run/lock/haproxy for two minutes. Try again later." </dev/null
umask 077
# Files of a run that was killed.
rm -f /etc/haproxy/certificate.*
new='' previous=''
trap 'rm -f "$new" "$previous"' EXIT
write_new_and_previous || fail "The certificate cannot be written to /etc/haproxy. The previous one stays in service." </dev/null
if ! certificate_is_loaded; then
  replace_file
elif ! cmp -s "$new" "$pem" || ! all_ports_serve_certificate; then
  replace_in_running_haproxy
else
  # Only corrects the owner and mode of the file.
  mv "$new" "$pem"
fi
