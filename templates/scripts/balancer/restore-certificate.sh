#!/usr/bin/env bash
# Restores the certificate and the ACME account on a new load balancer, before HAProxy gets its configuration.
# usage: restore-certificate.sh SECRET_ARN
source "$(dirname "$0")/prelude.sh"

# Without them HAProxy starts with the placeholder certificate. issue-certificate.sh tries again, and fails with the reason.
if ! "$(dirname "$0")/certificate-store.sh" restore "$1"; then
  exit 0
fi
save_record <<<"file /etc/letsencrypt/store"
"$(dirname "$0")/deploy-certificate.sh" || echo "The update continues. A later step deploys the certificate again."
