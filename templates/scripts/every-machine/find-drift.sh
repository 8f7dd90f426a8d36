#!/usr/bin/env bash
# Tells what on this machine is no longer as the update's scripts left it: diffs, each script's after a line "=== script".
# usage: find-drift.sh SCRIPT... < what was deployed, each file after a line "=== name": the scripts, and haproxy.cfg if it has one
# It is given to bash as text, and takes its prelude from there too: nothing that lies on the machine is believed.
set -euo pipefail
deployed=$(mktemp -d /run/find-drift.XXXXXX)
trap 'rm -rf "$deployed"' EXIT
(cd "$deployed" && awk '/^=== / { file = $2; next } { print > file }')
# shellcheck source=templates/scripts/every-machine/prelude.sh
source "$deployed/prelude.sh"
installed=/usr/local/lib/ant-media-cluster

# The difference between two files under their common name. Of what is secret only that it differs.
show() {
  if [[ $(head -n 1 "$3") == "not there" ]]; then
    echo "$1 is not there."
    return
  fi
  diff -u --label "$1 as deployed" --label "$1 now" "$2" "$3" |
    sed -E -e 's/^([- ].*)sha256 [0-9a-f]{64}$/\1contents as deployed, not shown/' \
      -e 's/^(\+.*)sha256 [0-9a-f]{64}$/\1other contents, not shown/' |
    awk 'NR <= 1000 { print substr($0, 1, 500) } NR == 1001 { print "More is cut here." }' || true
}

# A diff of what describe says of a thing, unless that is as it was.
compare() {
  local wanted=$1 name item
  name=$(basename "$1")
  name=${name//%//}
  read -ra item <<<"$name"
  # The state knows better than the machine what HAProxy is to do.
  if [[ $name == "file /etc/haproxy/haproxy.cfg" && -e $deployed/haproxy.cfg ]]; then
    mkdir -p "$deployed/known"
    wanted="$deployed/known/$(basename "$1")"
    { head -n 1 "$1" && cat "$deployed/haproxy.cfg"; } >"$wanted"
  fi
  if ! as_recorded "$wanted"; then
    describe "${item[@]}" >"$deployed/now"
    show "${item[1]}" "$wanted" "$deployed/now"
  fi
  [[ ${item[0]} != certificate ]] || served "$1"
}

haproxy_says() { socat -t 5 - UNIX-CONNECT:/run/haproxy/admin.sock <<<"$1" 2>/dev/null || true; }

# What HAProxy presents in place of the certificate that was deployed.
served() {
  local port ports=()
  [[ $(systemctl is-active haproxy) == active ]] || return 0
  grep -E '^(subject|issuer|serial|notAfter)=' "$1" >"$deployed/wanted"
  for port in 443 5443 4444 5080 6080; do
    timeout 5 openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | certificate_facts >"$deployed/now" || true
    if ! cmp -s "$deployed/wanted" "$deployed/now"; then
      ports+=("$port")
      mv "$deployed/now" "$deployed/presented"
    fi
  done
  ((${#ports[@]} == 0)) || show "what HAProxy serves on ${ports[*]}" "$deployed/wanted" "$deployed/presented"
}

# HAProxy reads its files when it starts or reloads, and commands of its socket are in no file.
not_as_read() {
  local file started
  started=$(haproxy_says "show info" | sed -n 's/^Start_time_sec: //p')
  for file in haproxy.cfg credentials.cfg; do
    if [[ -n $started && -e /etc/haproxy/$file ]] && (($(stat -c %Z "/etc/haproxy/$file") > started)); then
      echo "/etc/haproxy/$file was changed or touched after HAProxy read it, at $(date -u -d "@$started" '+%F %T') UTC: it may serve something else."
    fi
  done
  # Administrative states 1 and 8 of "show servers state": maintenance and drain, each asked for.
  haproxy_says "show servers state" | awk '
    $7 ~ /^[0-9]+$/ && $7 % 2 == 1 { print "Server " $2 "/" $4 " was taken out of service by hand (maintenance)." }
    $7 ~ /^[0-9]+$/ && int($7 / 8) % 2 == 1 { print "Server " $2 "/" $4 " was taken out of service by hand (drain)." }
    $8 ~ /^[0-9]+$/ && $8 != $9 { print "Server " $2 "/" $4 " has the weight " $8 " by hand; it was deployed with " $9 "." }'
}

installed_scripts() {
  local file
  if [[ ! -d $installed ]]; then
    echo "$installed is not there."
    return
  fi
  for file in "$deployed"/*.sh; do
    file=$(basename "$file")
    { echo "-rwxr-xr-x root:root" && cat "$deployed/$file"; } >"$deployed/wanted"
    describe file "$installed/$file" >"$deployed/now"
    show "$installed/$file" "$deployed/wanted" "$deployed/now"
  done
  for file in "$installed"/*; do
    [[ ! -e $file || -e $deployed/$(basename "$file") ]] || echo "$file was not deployed."
  done
}

# All that is to be said of a script.
of() {
  local thing
  if [[ $1 == install-scripts.sh ]]; then
    installed_scripts
    return
  fi
  if [[ ! -d $records/${1%.sh} ]]; then
    echo "There is no record of what it did on this machine."
    return
  fi
  for thing in "$records/${1%.sh}"/*; do
    [[ ! -e $thing ]] || compare "$thing"
  done
  case $1 in
    apply-haproxy-config.sh) not_as_read ;;
    issue-certificate.sh)
      # certbot may be writing just now.
      whole_lineage || { sleep 3 && whole_lineage; } || echo "certbot's certificate (/etc/letsencrypt/live/cluster) is missing or broken: it could not be renewed."
      ;;
  esac
}

for script in "$@"; do
  of "$script" | sed "1i=== $script"
done
