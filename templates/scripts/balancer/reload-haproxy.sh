#!/usr/bin/env bash
# Puts HAProxy's files as they are now into service without losing a connection, or says what HAProxy says against them.
set -euo pipefail

if ! message=$(haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/credentials.cfg 2>&1); then
  echo "HAProxy refuses its configuration:" >&2
  tail -n 20 <<<"$message" >&2
  exit 1
fi
if ! systemctl --quiet is-active haproxy; then
  systemctl start haproxy
  exit
fi
# Unlike systemctl, the master's own command waits for the new worker and tells how it fared.
# A master that starts itself over, as it does at every start and reload, refuses or cuts connections for an instant.
for _ in {1..50}; do
  answer=$(socat -t 60 - UNIX-CONNECT:/run/haproxy-master.sock 2>&1 <<<reload) || true
  [[ $answer != *Success=* ]] || break
  sleep 0.1
done
if [[ $answer != Success=1* ]]; then
  echo "HAProxy could not start with its new configuration; the old one serves on:" >&2
  tail -n 20 <<<"$answer" >&2
  exit 1
fi
