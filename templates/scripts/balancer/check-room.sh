#!/usr/bin/env bash
# Fails where certbot could not keep a certificate: one that is issued in vain counts for the ACME server's rate limits.
source "$(dirname "$0")/prelude.sh"

room=''
trap 'rm -f "$room"' EXIT
if ! { room=$(mktemp /etc/letsencrypt/room.XXXXXX) && head -c 128K /dev/zero >"$room"; }; then
  fail "No certificate was asked for, because the load balancer's disk is full. Everything else is done; HAProxy serves" \
    "with the certificate it has. Make room there: the next update tries again, and so does certbot's timer." </dev/null
fi
