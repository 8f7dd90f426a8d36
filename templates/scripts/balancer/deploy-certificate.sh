#!/usr/bin/env bash
# Brings certbot's certificate to HAProxy, to the certificate store and to the metrics.
# Runs as certbot's deploy hook, after every run of certbot.service and in every update, so that a failed deployment is retried.
source "$(dirname "$0")/prelude.sh"
live=/etc/letsencrypt/live/cluster
"$(dirname "$0")/certificate-store.sh" restore
# certbot has no certificate when the user brings one.
[[ -e $live ]] || exit 0
cat "$live/fullchain.pem" "$live/privkey.pem" | "$(dirname "$0")/put-certificate.sh"
save_record <<<"certificate /etc/haproxy/certs/cluster.pem"
"$(dirname "$0")/record-certificate.sh"
"$(dirname "$0")/certificate-store.sh" save
echo "HAProxy serves a certificate valid until $(openssl x509 -noout -enddate -in "$live/cert.pem" | cut -d = -f 2)"
