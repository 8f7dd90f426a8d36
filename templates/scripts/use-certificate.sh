#!/usr/bin/env bash
# Serves a certificate that the user has, and lets certbot forget its own, which would replace it.
# usage: use-certificate.sh < PEM
source "$(dirname "$0")/prelude.sh"

"$(dirname "$0")/put-certificate.sh"
"$(dirname "$0")/record-certificate.sh"
if [[ -e /etc/letsencrypt/renewal/cluster.conf ]]; then
  certbot delete --non-interactive --cert-name cluster >/dev/null 2>&1
fi
