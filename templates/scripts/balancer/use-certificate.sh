#!/usr/bin/env bash
# Serves a certificate that the user has, and lets certbot forget its own, which would replace it.
# usage: use-certificate.sh < PEM
source "$(dirname "$0")/prelude.sh"

"$(dirname "$0")/put-certificate.sh"
keep <<<"certificate /etc/haproxy/certs/cluster.pem"
"$(dirname "$0")/record-certificate.sh"
rm -f /etc/letsencrypt/store /etc/letsencrypt/store.saved
if [[ -e /etc/letsencrypt/renewal/cluster.conf ]]; then
  certbot_in_turn delete --non-interactive --cert-name cluster >/var/log/delete-certificate.log ||
    { ! grep -q "Another instance" /var/log/delete-certificate.log && rm -rf /etc/letsencrypt/{live,archive,renewal}/cluster*; } ||
    fail "HAProxy serves your certificate, but certbot does not let go of its own, and would bring it back. certbot says:" \
      </var/log/delete-certificate.log
fi
