#!/usr/bin/env bash
# Validates HAProxy's files and reloads HAProxy without losing a connection; starts it if it is not running. Prints HAProxy's errors.
set -euo pipefail

if ! message=$(haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/credentials.cfg 2>&1); then
  echo "HAProxy rejected its configuration:" >&2
  tail -n 20 <<<"$message" >&2
  exit 1
fi
if ! systemctl --quiet is-active haproxy; then
  systemctl start haproxy
  exit
fi
# Unlike systemctl, the master's own command waits for the new worker and reports its errors.
# The master re-executes itself at every start and reload, and refuses connections for a moment; hence the retries.
for _ in {1..50}; do
  answer=$(socat -t 60 - UNIX-CONNECT:/run/haproxy-master.sock 2>&1 <<<reload) || true
  [[ $answer != *Success=* ]] || break
  sleep 0.1
done
if [[ $answer != Success=1* ]]; then
  echo "HAProxy could not start with its new configuration and still serves the previous one:" >&2
  tail -n 20 <<<"$answer" >&2
  exit 1
fi
