#!/usr/bin/env bash
# Validates HAProxy's files and reloads HAProxy without losing a connection; starts it if it is not running. Prints HAProxy's errors.
# The new worker takes over the state of the servers, so a node that starts or is drained gets no request after a reload either.
# usage: reload-haproxy.sh [validated]
#   validated   the caller has just validated the files
set -euo pipefail

if [[ ${1:-} != validated ]] && ! message=$(haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/credentials.cfg 2>&1); then
  echo "HAProxy rejected its configuration:" >&2
  tail -n 20 <<<"$message" >&2
  exit 1
fi
if ! systemctl --quiet is-active haproxy; then
  # After some failed starts systemd refuses more.
  systemctl reset-failed haproxy 2>/dev/null || true
  systemctl start haproxy
  exit
fi
# The file of `server-state-file` in haproxy.cfg. It is emptied after the reload, so that a later start loads no old state.
# An empty file holds the version of its format.
readonly state=/run/haproxy/server-state
trap 'rm -f "$state.new"; echo 1 >"$state"' EXIT
if socat -t 10 - UNIX-CONNECT:/run/haproxy/admin.sock <<<"show servers state" >"$state.new" 2>/dev/null; then
  mv "$state.new" "$state"
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
