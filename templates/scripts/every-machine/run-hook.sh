#!/usr/bin/env bash
# Runs a script of the user's repository on this machine. Its output goes to /var/log/hook.log; if it fails, the end is printed.
# usage: run-hook.sh NAME ROLE < script
#   NAME, ROLE   of this machine (origin1 origin, for example): the script's arguments
source "$(dirname "$0")/prelude.sh"
hook=/var/lib/ant-media-cluster/hook
log=/var/log/hook.log

install -D -m 0700 /dev/stdin "$hook"
status=0
"$hook" "$@" </dev/null >"$log" 2>&1 || status=$?
if ((status != 0)); then
  tail -n 20 "$log" | cut -c 1-500 | fail "The hook ended with exit code $status. The end of $log:"
fi
echo "The hook has run"
