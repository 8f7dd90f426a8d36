#!/usr/bin/env bash
# Prints what differs on this machine: for each script with differences a line `=== SCRIPT`, then the diffs.
# usage: find-drift.sh SCRIPT... < deployed
#        Standard input holds the deployed files, each after a line "=== NAME": the scripts, and haproxy.cfg on the load balancer.
# Neither this script nor the prelude is read from the machine, where they may have been changed.
set -euo pipefail
deployed=$(mktemp -d /run/find-drift.XXXXXX)
trap 'rm -rf "$deployed"' EXIT
(cd "$deployed" && awk '/^=== / { file = $2; next } { print > file }')
# shellcheck source=templates/scripts/every-machine/prelude.sh
source "$deployed/prelude.sh"
installed=/usr/local/lib/ant-media-cluster

# Prints the difference between two files under the name $1. Digests of secrets are not shown.
print_diff() {
  if [[ $(head -n 1 "$3") == missing ]]; then
    echo "$1 is missing."
    return
  fi
  diff -u --label "$1 as deployed" --label "$1 now" "$2" "$3" |
    sed -E -e 's/^([- ].*)sha256 [0-9a-f]{64}$/\1contents as deployed, not shown/' \
      -e 's/^(\+.*)sha256 [0-9a-f]{64}$/\1other contents, not shown/' |
    awk 'NR <= 1000 { print substr($0, 1, 500) } NR == 1001 { print "More lines are not shown." }' || true
}

# Compares an item with its file in `records`, and prints a diff if it has changed.
compare_item() {
  local expected=$1 name item
  name=$(basename "$1")
  name=${name//%//}
  read -ra item <<<"$name"
  # The stack's haproxy.cfg is more trustworthy than the record on the machine.
  if [[ $name == "file /etc/haproxy/haproxy.cfg" && -e $deployed/haproxy.cfg ]]; then
    mkdir -p "$deployed/expected"
    expected="$deployed/expected/$(basename "$1")"
    { head -n 1 "$1" && cat "$deployed/haproxy.cfg"; } >"$expected"
  fi
  if ! matches_record "$expected"; then
    describe "${item[@]}" >"$deployed/now"
    print_diff "${item[1]}" "$expected" "$deployed/now"
  fi
  [[ ${item[0]} != certificate ]] || compare_served_certificate "$1"
}

ask_haproxy() { socat -t 5 - UNIX-CONNECT:/run/haproxy/admin.sock <<<"$1" 2>/dev/null || true; }

# Prints a diff if HAProxy presents another certificate than the deployed one.
compare_served_certificate() {
  local port ports=()
  [[ $(systemctl is-active haproxy) == active ]] || return 0
  grep -E '^(subject|issuer|serial|notAfter)=' "$1" >"$deployed/expected-certificate"
  for port in $(list_tls_ports); do
    timeout 5 openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | print_certificate_facts >"$deployed/now" || true
    if ! cmp -s "$deployed/expected-certificate" "$deployed/now"; then
      ports+=("$port")
      mv "$deployed/now" "$deployed/presented"
    fi
  done
  ((${#ports[@]} == 0)) || print_diff "the certificate that HAProxy serves on ${ports[*]}" "$deployed/expected-certificate" "$deployed/presented"
}

# Reports files that HAProxy has not read since they changed, and changes through its socket, which are in no file.
report_haproxy_state() {
  local file started
  started=$(ask_haproxy "show info" | sed -n 's/^Start_time_sec: //p')
  for file in haproxy.cfg credentials.cfg; do
    if [[ -n $started && -e /etc/haproxy/$file ]] && (($(stat -c %Z "/etc/haproxy/$file") > started)); then
      echo "/etc/haproxy/$file was changed or touched after HAProxy read it at $(date -u -d "@$started" '+%F %T') UTC. HAProxy may run with other content."
    fi
  done
  # Bits of the administrative state in "show servers state": 1 is maintenance, 8 is drain, both set through the socket.
  ask_haproxy "show servers state" | awk '
    $7 ~ /^[0-9]+$/ && $7 % 2 == 1 { print "Server " $2 "/" $4 " is in maintenance. An update that was interrupted, or somebody, took it out of service." }
    $7 ~ /^[0-9]+$/ && int($7 / 8) % 2 == 1 { print "Server " $2 "/" $4 " is drained. An update that was interrupted, or somebody, took it out of service." }
    $8 ~ /^[0-9]+$/ && $8 != $9 { print "Server " $2 "/" $4 " has weight " $8 ", set by hand. It was deployed with " $9 "." }'
}

compare_installed_scripts() {
  local file
  if [[ ! -d $installed ]]; then
    echo "$installed is missing."
    return
  fi
  for file in "$deployed"/*.{sh,py}; do
    [[ -e $file ]] || continue
    file=$(basename "$file")
    { echo "-rwxr-xr-x root:root" && cat "$deployed/$file"; } >"$deployed/expected-script"
    describe file "$installed/$file" >"$deployed/now"
    print_diff "$installed/$file" "$deployed/expected-script" "$deployed/now"
  done
  for file in "$installed"/*; do
    [[ ! -e $file || -e $deployed/$(basename "$file") ]] || echo "$file was not deployed."
  done
}

# Prints everything that differs from what the script $1 left.
report_drift() {
  local file
  if [[ $1 == install-scripts.sh ]]; then
    compare_installed_scripts
    # Its last step.
    set -- configure-system.sh
  fi
  if [[ ! -d $records/${1%.sh} ]]; then
    echo "This machine has no record of the script's last run."
    return
  fi
  for file in "$records/${1%.sh}"/*; do
    [[ ! -e $file ]] || compare_item "$file"
  done
  case $1 in
    apply-haproxy-config.sh) report_haproxy_state ;;
    issue-certificate.sh)
      # certbot may be writing its files at this moment.
      lineage_is_complete || { sleep 3 && lineage_is_complete; } ||
        echo "certbot's certificate (/etc/letsencrypt/live/cluster) is missing or damaged. It cannot be renewed."
      ;;
  esac
}

for script in "$@"; do
  report_drift "$script" | sed "1i=== $script"
done
