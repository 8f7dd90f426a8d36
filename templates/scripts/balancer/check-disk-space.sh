#!/usr/bin/env bash
# Fails if the disk has no room for a new certificate. Issuing one that cannot be saved would count against the ACME server's rate limit.
source "$(dirname "$0")/prelude.sh"

room=''
trap 'rm -f "$room"' EXIT
if ! { room=$(mktemp /etc/letsencrypt/room.XXXXXX) && head -c 128K /dev/zero >"$room"; }; then
  fail "No certificate was requested, because the load balancer's disk is full. The rest of the update is done, and HAProxy" \
    "serves the certificate it has. Free disk space on the load balancer: the next update or run of certbot's timer tries again." </dev/null
fi
