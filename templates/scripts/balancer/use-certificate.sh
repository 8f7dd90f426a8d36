#!/usr/bin/env bash
# Puts a certificate of the user into service, and deletes the certificate of certbot, whose renewal would replace it.
# usage: use-certificate.sh < PEM
source "$(dirname "$0")/prelude.sh"

"$(dirname "$0")/put-certificate.sh"
save_record <<<"certificate /etc/haproxy/certs/cluster.pem"
"$(dirname "$0")/record-certificate.sh"
rm -f /etc/letsencrypt/store /etc/letsencrypt/store.saved
if [[ -e /etc/letsencrypt/renewal/cluster.conf ]]; then
  run_certbot delete --non-interactive --cert-name cluster >/var/log/delete-certificate.log ||
    { ! grep -q "Another instance" /var/log/delete-certificate.log && rm -rf /etc/letsencrypt/{live,archive,renewal}/cluster*; } ||
    fail "HAProxy serves your certificate, but certbot could not delete its own, whose renewal would replace yours. certbot reports:" \
      </var/log/delete-certificate.log
fi
