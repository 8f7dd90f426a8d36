#!/usr/bin/env bash
# Waits until HAProxy calls every server healthy.
# usage: wait-for-servers.sh CONFIGURATION_DIGEST   (the digest only makes the step run again when the configuration changed)
readonly limit=180

# name and state of every server that is checked; see "show stat" in HAProxy's management guide.
servers() {
  socat - UNIX-CONNECT:/run/haproxy/admin.sock <<<"show stat -1 4 -1" | awk -F, '!/^#/ && NF > 1 && $18 != "no check" { print $1 "/" $2, $18 }'
}

until unhealthy=$(servers | awk '$2 != "UP"') && [[ -z $unhealthy ]]; do
  if ((SECONDS > limit)); then
    head -n 20 <<<"$unhealthy" | fail "After $limit seconds HAProxy still does not call these servers healthy:"
  fi
  sleep 1
done
echo "HAProxy calls all $(servers | cut -d ' ' -f 1 | cut -d / -f 2 | sort -u | wc -l) servers healthy"
