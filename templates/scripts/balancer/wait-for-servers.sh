#!/usr/bin/env bash
# Waits until HAProxy calls every server healthy.
# usage: wait-for-servers.sh CONFIGURATION_DIGEST   (the digest only makes the step run again when the configuration changed)
source "$(dirname "$0")/prelude.sh"
readonly limit=180

# Name and state of every server that is checked, or tracks one that is; see "show stat" in HAProxy's management guide.
# A server counts as UP from HAProxy's start on: only a check that it passed (L7OK) means something.
servers() {
  socat - UNIX-CONNECT:/run/haproxy/admin.sock <<<"show stat -1 4 -1" | awk -F, '
    /^#/ || NF < 2 || $18 == "no check" { next }
    { state = $37 == "" || $37 == "L7OK" ? $18 : $37; gsub(" ", "-", state); print $1 "/" $2, state }'
}

until unhealthy=$(servers | awk '$2 != "UP"') && [[ -z $unhealthy ]]; do
  if ((SECONDS > limit)); then
    head -n 20 <<<"$unhealthy" | fail "After $limit seconds HAProxy still does not call these servers healthy:"
  fi
  sleep 1
done
echo "HAProxy calls all $(servers | cut -d ' ' -f 1 | cut -d / -f 2 | sort -u | wc -l) servers healthy"
