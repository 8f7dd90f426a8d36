#!/usr/bin/env bash
# Writes the metrics of the certificate that HAProxy serves, for node-exporter. Failed renewals are in the metrics of certbot.service.
source "$(dirname "$0")/prelude.sh"
pem=/etc/haproxy/certs/cluster.pem
metrics=/var/lib/prometheus/node-exporter/certificate.prom

# Prints the HELP and TYPE lines of a gauge.
declare_gauge() { printf '# HELP %s %s\n# TYPE %s gauge\n' "$1" "$2" "$1"; }

# Prints a field of the leaf certificate.
read_field() { openssl x509 -in "$pem" -noout "$@"; }
# Escapes a label's value as the exposition format requires.
escape_label() { sed 's/["\\]/\\&/g'; }

read_names() { read_field -ext subjectAltName | grep -o 'DNS:[^, ]*' | cut -d : -f 2 | paste -s -d , || true; }
read_issuer() { read_field -issuer -nameopt RFC2253,-esc_msb,utf8 | sed 's/^issuer=//'; }
read_serial() { read_field -serial | cut -d = -f 2; }
read_expiry() { read_field -enddate | cut -d = -f 2 | date --file - +%s; }

write_metrics() {
  local names issuer serial expiry
  names=$(read_names | escape_label)
  issuer=$(read_issuer | escape_label)
  serial=$(read_serial)
  expiry=$(read_expiry)
  declare_gauge tls_certificate_not_after_timestamp_seconds "When the certificate that HAProxy serves expires."
  printf 'tls_certificate_not_after_timestamp_seconds{names="%s",issuer="%s",serial="%s"} %s\n' "$names" "$issuer" "$serial" "$expiry"
}

# Never fails a deployment: the certificate is in service already.
finish() {
  (($? == 0)) || echo "The certificate's metrics could not be written. The previous ones stay." >&2
  rm -f "$new"
  exit 0
}

new=
trap finish EXIT
# node-exporter ignores this file, since its name does not end in .prom.
new=$(mktemp "$metrics.XXXXXX")
write_metrics >"$new"
chmod 0644 "$new"
mv "$new" "$metrics"
