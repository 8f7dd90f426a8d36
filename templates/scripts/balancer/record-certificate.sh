#!/usr/bin/env bash
# Tells Prometheus, through node-exporter, of the certificate that HAProxy serves. (How certbot fared, systemd tells.)
source "$(dirname "$0")/prelude.sh"
pem=/etc/haproxy/certs/cluster.pem
metrics=/var/lib/prometheus/node-exporter/certificate.prom

gauge() { printf '# HELP %s %s\n# TYPE %s gauge\n' "$1" "$2" "$1"; }

# Of the leaf, as a label's value; the sed is the exposition format's escaping.
about() { openssl x509 -in "$pem" -noout "$@"; }
quoted() { sed 's/["\\]/\\&/g'; }

names() { about -ext subjectAltName | grep -o 'DNS:[^, ]*' | cut -d : -f 2 | paste -s -d , || true; }
issuer() { about -issuer -nameopt RFC2253,-esc_msb,utf8 | sed 's/^issuer=//'; }
serial() { about -serial | cut -d = -f 2; }
end() { about -enddate | cut -d = -f 2 | date --file - +%s; }

write_certificate() {
  local names issuer serial end
  names=$(names | quoted)
  issuer=$(issuer | quoted)
  serial=$(serial)
  end=$(end)
  gauge tls_certificate_not_after_timestamp_seconds "When the certificate that HAProxy serves expires."
  printf 'tls_certificate_not_after_timestamp_seconds{names="%s",issuer="%s",serial="%s"} %s\n' "$names" "$issuer" "$serial" "$end"
}

# Whatever becomes of this, the certificate serves: no deployment fails for it.
finish() {
  (($? == 0)) || echo "The certificate's metrics could not be written; those before them stay." >&2
  rm -f "$new"
  exit 0
}

new=
trap finish EXIT
# node-exporter reads what ends in .prom.
new=$(mktemp "$metrics.XXXXXX")
write_certificate >"$new"
chmod 0644 "$new"
mv "$new" "$metrics"
