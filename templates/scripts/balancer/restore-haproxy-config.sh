#!/usr/bin/env bash
# Returns HAProxy to its last good configuration after an apply-haproxy-config.sh that was killed. Otherwise does nothing.
# usage: restore-haproxy-config.sh               waits for a running apply, then restores the file and reloads HAProxy
#        restore-haproxy-config.sh before-start  restores the file before HAProxy starts, unless an apply starts HAProxy
source "$(dirname "$0")/prelude.sh"
current=/etc/haproxy/haproxy.cfg

# An apply commits by renaming this file to that of the last good configuration.
apply_was_killed() { [[ -e $current.new && -e $current.last-good ]]; }

restore_file() {
  # A hard link needs no disk space.
  { cp -p "$current.last-good" "$current.staged" && mv "$current.staged" "$current"; } 2>/dev/null || ln -f "$current.last-good" "$current"
}

exec 9>/run/lock/haproxy
if [[ ${1:-} == before-start ]]; then
  # A killed reload-haproxy.sh leaves a state that is old by now.
  echo 1 >/run/haproxy/server-state
  flock --nonblock 9 && apply_was_killed || exit 0
  restore_file
else
  flock 9
  apply_was_killed || exit 0
  restore_file
  "$(dirname "$0")/reload-haproxy.sh"
fi
rm -f "$current.new" "$current.staged"
echo "Restored HAProxy's last good configuration after an interrupted update"
