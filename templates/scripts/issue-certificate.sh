#!/usr/bin/env bash
# Gets a certificate for the domain through the running HAProxy and lets certbot's timer renew it the same way.
# usage: issue-certificate.sh DOMAIN EMAIL DIRECTORY_URL PUBLIC_ADDRESS
source "$(dirname "$0")/prelude.sh"
domain=$1 email=$2 directory=$3 address=$4
hook=$(dirname "$0")/deploy-certificate.sh
log=/var/log/issue-certificate.log

# A certificate of another ACME server does not count; one of this server is kept until it is due.
renewal=(--keep-until-expiring)
if [[ -e /etc/letsencrypt/renewal/$domain.conf ]] && ! grep -qF "server = $directory" "/etc/letsencrypt/renewal/$domain.conf"; then
  renewal=(--force-renewal)
fi

echo "Asking $directory for a certificate for $domain"
if ! certbot certonly --non-interactive --agree-tos --email "$email" --server "$directory" \
  --standalone --http-01-address 127.0.0.1 --http-01-port 8888 \
  --cert-name "$domain" --domain "$domain" --key-type ecdsa --elliptic-curve secp256r1 \
  --deploy-hook "$hook" "${renewal[@]}" >"$log" 2>&1; then
  grep -vE '^(Saving debug log|- - -|$)' "$log" | tail -n 15 |
    fail "certbot got no certificate for $domain. Everything else is done; HAProxy serves with the certificate it has, on a new" \
      "machine or domain a placeholder. Make sure of the DNS record '$domain. A $address', then run the update again. certbot says:"
fi

# certbot calls the hook for a new certificate only: a machine may have lost the PEM, not the certificate.
live=/etc/letsencrypt/live/$domain
if ! cat "$live/fullchain.pem" "$live/privkey.pem" | cmp -s - "/etc/haproxy/certs/$domain.pem"; then
  RENEWED_LINEAGE=$live "$hook"
fi
echo "HAProxy serves a certificate valid until $(openssl x509 -noout -enddate -in "$live/fullchain.pem" | cut -d = -f 2)"
