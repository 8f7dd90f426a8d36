# Functions that several of the machine scripts share. The scripts source this file.
# shellcheck shell=bash
set -euo pipefail

# Prints the arguments and then standard input to standard error, and ends the script with exit code 1.
fail() {
  echo "$*" >&2
  cat >&2
  exit 1
}

is_installed() { [[ $(describe package "$1") == installed* ]]; }

# Installs packages that are not installed yet. It upgrades none: an upgrade restarts their services.
install_packages() {
  local log=/var/log/install-packages.log updated=/run/ant-media-cluster-apt-updated package missing=() end
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]} > 0)) || return 0
  set -- "${missing[@]}"
  echo "Installing $*"
  # With lists that an earlier script fetched, an installation may fail. It is then repeated with new ones.
  if ! {
    { [[ $(find "$updated" -mmin -60 2>/dev/null) ]] && apt_install "$@"; } || {
      # `apt-get update` does not wait for another apt process, so it is retried. `apt-get install` does wait (configure-system.sh).
      end=$((SECONDS + 120))
      until apt-get update || ((SECONDS > end)); do sleep 3; done
      apt_install "$@" && touch "$updated"
    }
  } >"$log" 2>&1; then
    tail -n 20 "$log" | fail "apt-get failed. The end of $log:"
  fi
}

apt_install() {
  # Configuration files that were changed keep their content. Without the option dpkg would ask.
  # With SYSTEMD_OFFLINE, packages start no services: the scripts configure them first. A script has to start what it needs, timers
  # too. Without it, systemd would also read all units again, up to four times for each package.
  SYSTEMD_OFFLINE=1 DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Options::=--force-confold install -y --no-install-recommends "$@"
}

# Runs certbot and prints its output. Retries for two minutes while another certbot process, such as its timer's, is running.
run_certbot() {
  local output status tries=0
  until output=$(certbot "$@" 2>&1) && status=0 || status=$?; [[ $output != *"Another instance of Certbot"* ]] || ((++tries > 40)); do
    sleep 3
  done
  echo "$output"
  return "$status"
}

# Replaces a file with standard input. The previous content stays if the disk is full or the script is killed.
write_file() {
  install -D -m 0644 /dev/stdin "$1.new"
  mv "$1.new" "$1"
}

# Writes standard input to a file of systemd's configuration: add_unit_file haproxy.service.d/restart.conf
add_unit_file() {
  local file=/etc/systemd/system/$1 text before
  text=$(cat)
  before=$(cat "$file" 2>/dev/null) || true
  write_file "$file" <<<"$text"
  # Of a unit that is not loaded, systemd reads the present files when it needs it.
  [[ $text == "$before" || $(systemctl show --property NeedDaemonReload --value "${1%%.d/*}") != yes ]] || systemctl daemon-reload
}

# Enables units, also those that were masked or disabled by hand. systemd then knows the present files of all units.
enable_units() {
  # For a unit that has an init script too, systemctl would read all units again three times.
  local offline=(env SYSTEMD_OFFLINE=1 SYSTEMD_LOG_LEVEL=warning systemctl --quiet)
  "${offline[@]}" unmask "$@"
  "${offline[@]}" enable "$@"
  systemctl daemon-reload
}

# Enables and starts units, also those that were stopped by hand.
start_units() {
  enable_units "$@"
  systemctl start "$@"
}

# True if certbot's certificate, key and renewal settings are complete. certbot writes them one after another,
# and may be killed or run out of disk space in between.
lineage_is_complete() {
  local live=/etc/letsencrypt/live/cluster renewal=/etc/letsencrypt/renewal key
  grep -q '^server = ' "$renewal/cluster.conf" && ! compgen -G "$renewal/cluster-*" >/dev/null &&
    key=$(openssl pkey -pubout -in "$live/privkey.pem") && [[ $(openssl x509 -noout -pubkey -in "$live/fullchain.pem") == "$key" ]]
} 2>/dev/null

# Prints the present state of an item, with a digest in place of a secret. Items are:
#   package NAME                    its version
#   unit NAME                       whether it is enabled and active
#   enabled UNIT                    whether it is enabled
#   file PATH                       owner, mode and content
#   secret PATH                     owner, mode and digest
#   certificate PATH                owner, mode, subject, issuer, serial number, expiry and digest
#   lines PATH PATTERN              the lines that match
#   settings PATH PATTERN           the keys that match in lines KEY=SECRET, each with a digest
describe() {
  local kind=$1 name=$2 pattern line
  shift 2
  pattern=$*
  case $kind in
    package) dpkg-query --show --showformat '${db:Status-Status} ${Version}\n' "$name" 2>/dev/null | grep '^installed ' || echo "not installed" ;;
    unit) printf '%s, %s\n' "$(systemctl is-enabled "$name" 2>/dev/null)" "$(systemctl is-active "$name" | sed 's/^reloading$/active/')" ;;
    enabled) systemctl is-enabled "$name" 2>/dev/null || true ;;
    lines) { grep -E -e "$pattern" "$name" 2>/dev/null || true; } | sort ;;
    settings)
      { grep -E -e "^($pattern)=" "$name" 2>/dev/null || true; } | sort | while IFS= read -r line; do
        # Ant Media Server writes these files anew, with a backslash before : and = (Java's Properties.store).
        echo "${line%%=*} $(print_digest <<<"${line//\\/}")"
      done
      ;;
    *)
      if ! stat --format '%A %U:%G' "$name" 2>/dev/null; then
        echo missing
      elif [[ ! -f $name ]]; then
        return
      elif [[ $kind == file ]]; then
        cat "$name"
      else
        [[ $kind == secret ]] || print_certificate_facts <"$name"
        print_digest <"$name"
      fi
      ;;
  esac
}

# Prints the ports that haproxy.cfg, or another file, binds.
list_ports() { sed -n 's/^ *bind  *[*]\{0,1\}:\([0-9][0-9]*\).*/\1/p' "${1:-/etc/haproxy/haproxy.cfg}"; }

# Prints those that accept TLS: all but HTTP's and RTMP's.
list_tls_ports() { list_ports | grep -vxE '80|1935'; }

print_digest() {
  local digest
  digest=$(sha256sum)
  echo "sha256 ${digest%% *}"
}

print_certificate_facts() { openssl x509 -noout -subject -issuer -serial -enddate 2>/dev/null || echo "no certificate"; }

# A folder for each script, in it a file for each item that the script manages: what `describe` printed after its last run.
readonly records=/var/lib/ant-media-cluster/kept
record=$records/$(basename "$0" .sh)

# Records the items on standard input, one a line, for find-drift.sh. A failure prints a warning and does not end the script.
save_record() {
  local item name
  (
    umask 077
    rm -rf "$record.new" && mkdir -p "$record.new" || exit
    while read -ra item; do
      name=${item[*]}
      describe_expected "${item[@]}" >"$record.new/${name//\//%}" || exit
    done
    rm -rf "$record" && mv "$record.new" "$record"
  ) || echo "Could not write the record in $record. 'make drift' will report differences that are none." >&2
}

# Prints what `describe` must print for an item. A unit may still be starting, or wait for something that a later script repairs.
describe_expected() {
  case $1 in
    unit) echo "enabled, active" ;;
    enabled) echo enabled ;;
    *) describe "$@" ;;
  esac
}

# True if an item matches its file in `records`. An upgraded package and a deleted application count as unchanged.
matches_record() {
  local item now
  item=${1##*/}
  read -ra item <<<"${item//%//}"
  case ${item[0]} in
    package)
      now=$(describe "${item[@]}")
      [[ $now == installed* ]] && dpkg --compare-versions "${now#* }" ge "$(cut -d ' ' -f 2 "$1")"
      return
      ;;
    settings) [[ -e ${item[1]} ]] || return 0 ;;
  esac
  describe "${item[@]}" | cmp -s - "$1"
}

# True if nothing that this script manages has changed since its last run, or if it never ran.
# Where it is false, a service may run with the changed files and must be restarted.
unchanged_since_last_run() {
  local file
  for file in "$record"/*; do
    [[ ! -e $file ]] || matches_record "$file" || return
  done
}
