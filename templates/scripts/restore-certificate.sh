#!/usr/bin/env bash
# Gives a new machine the certificate and the ACME account of the one before it, before HAProxy serves.
# usage: restore-certificate.sh SECRET_ARN
source "$(dirname "$0")/prelude.sh"

"$(dirname "$0")/certificate-store.sh" restore "$1"
if [[ -e /etc/letsencrypt/live/cluster ]]; then
  cat /etc/letsencrypt/live/cluster/{fullchain,privkey}.pem | "$(dirname "$0")/put-certificate.sh"
fi
