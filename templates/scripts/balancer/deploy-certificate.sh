#!/usr/bin/env bash
# certbot's deploy hook, and what its service and every update do after it, so that nothing that failed is forgotten:
# HAProxy, the store and the metrics follow the certificate that certbot has.
source "$(dirname "$0")/prelude.sh"
live=/etc/letsencrypt/live/cluster
"$(dirname "$0")/certificate-store.sh" restore
# A certificate of the user's own is not certbot's.
[[ -e $live ]] || exit 0
cat "$live/fullchain.pem" "$live/privkey.pem" | "$(dirname "$0")/put-certificate.sh"
keep <<<"certificate /etc/haproxy/certs/cluster.pem"
"$(dirname "$0")/record-certificate.sh"
"$(dirname "$0")/certificate-store.sh" save
echo "HAProxy serves a certificate valid until $(openssl x509 -noout -enddate -in "$live/cert.pem" | cut -d = -f 2)"
