#!/usr/bin/env bash
# certbot's deploy hook: puts a certificate that was just issued or renewed into HAProxy's service.
# certbot calls it by its installed path and sets RENEWED_LINEAGE.
set -euo pipefail
lineage=${RENEWED_LINEAGE:?is set by certbot}
pem=/etc/haproxy/certs/$(basename "$lineage").pem

serial_of_file() { openssl x509 -noout -serial -in "$1"; }

serial_served() {
  openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | openssl x509 -noout -serial
}

exec 9>/run/lock/haproxy
flock 9
umask 077
# Not beside the PEM: HAProxy may read every file of that directory.
previous=$(mktemp /etc/haproxy/certificate.XXXXXX)
new=$(mktemp /etc/haproxy/certificate.XXXXXX)
trap 'rm -f "$previous" "$new"' EXIT
[[ ! -e $pem ]] || cp -p "$pem" "$previous"
cat "$lineage/fullchain.pem" "$lineage/privkey.pem" >"$new"
mv "$new" "$pem"
if ! "$(dirname "$0")/reload-haproxy.sh"; then
  [[ ! -s $previous ]] || mv "$previous" "$pem"
  echo "The certificate before it stays in service." >&2
  exit 1
fi
if [[ $(serial_served) != "$(serial_of_file "$pem")" ]]; then
  echo "HAProxy was reloaded, but port 443 does not serve the new certificate." >&2
  exit 1
fi
