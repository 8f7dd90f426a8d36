#!/usr/bin/env bash
# Puts a certificate into HAProxy's service while it runs, or says what speaks against it; the one before it then serves on.
# usage: put-certificate.sh < PEM (the chain, its leaf first, and the private key)
source "$(dirname "$0")/prelude.sh"
pem=/etc/haproxy/certs/cluster.pem

ask_haproxy() { socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock 2>/dev/null; }

# A HAProxy that runs and says nothing must not pass for one that has no use for the file, unless somebody took its socket.
in_service() {
  local known
  known=$(ask_haproxy <<<"show ssl cert") || ! systemctl --quiet is-active haproxy || ! grep -q admin.sock /etc/haproxy/haproxy.cfg ||
    fail "HAProxy runs but takes no commands; the certificate before this one stays in service." </dev/null
  grep -qxF "$pem" <<<"$known"
}

print_of() { openssl x509 -noout -fingerprint -sha256 2>/dev/null; }

served_on() { [[ $(timeout 5 openssl s_client -connect "127.0.0.1:$1" </dev/null 2>/dev/null | print_of) == "$(print_of <"$pem")" ]]; }

# A port that is busy is asked again.
served_everywhere() {
  local port
  for port in 443 5443 4444 5080 6080; do
    served_on "$port" || { sleep 1 && served_on "$port"; } || { sleep 2 && served_on "$port"; } || return
  done
}

take_back() {
  ask_haproxy <<<"abort ssl cert $pem" >/dev/null || true
  [[ ! -s $previous ]] || mv "$previous" "$pem"
  fail "HAProxy refuses the certificate; the one before it stays in service. HAProxy says:"
}

# HAProxy judges the certificate before it serves it. No reload: no connection moves, no worker is left behind.
replace_in_service() {
  local answer
  answer=$({ echo "set ssl cert $pem <<" && cat "$new" && echo; } | ask_haproxy) || true
  if [[ $answer != *"Transaction created"* && $answer != *"Transaction updated"* ]]; then
    take_back <<<"${answer:-nothing; see journalctl -u haproxy}"
  fi
  mv "$new" "$pem"
  answer=$(ask_haproxy <<<"commit ssl cert $pem") || true
  [[ $answer == *Success* ]] || take_back <<<"${answer:-nothing; see journalctl -u haproxy}"
  served_everywhere || fail "HAProxy took the certificate, but not every port serves it." </dev/null
}

# A HAProxy that is not there yet, or has no use for the file yet, reads it with its configuration.
replace_for_the_next_start() {
  local message
  # What is wrong with the other files is not this one's fault.
  good() { haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/credentials.cfg 2>&1; }
  if message=$(good); then
    mv "$new" "$pem"
    message=$(good) || take_back <<<"$message"
  else
    mv "$new" "$pem"
  fi
}

# Not beside the PEM: HAProxy may read every file of that directory. An empty line would end what its socket reads.
write_files() {
  install -d -m 0700 "${pem%/*}" && new=$(mktemp /etc/haproxy/certificate.XXXXXX) && previous=$(mktemp /etc/haproxy/certificate.XXXXXX) &&
    sed '/^[[:space:]]*$/d' >"$new" && { [[ ! -e $pem ]] || cp -p "$pem" "$previous"; }
}

exec 9>/run/lock/haproxy
flock -w 120 9 || fail "Something else has been changing HAProxy's files for two minutes; try again." </dev/null
umask 077
# Of one that was killed.
rm -f /etc/haproxy/certificate.*
new='' previous=''
trap 'rm -f "$new" "$previous"' EXIT
write_files || fail "The certificate cannot be written to /etc/haproxy; the one before it stays in service." </dev/null
if ! in_service; then
  replace_for_the_next_start
elif ! cmp -s "$new" "$pem" || ! served_everywhere; then
  replace_in_service
else
  # With its owner and mode.
  mv "$new" "$pem"
fi
