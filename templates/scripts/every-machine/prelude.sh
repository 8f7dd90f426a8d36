# Sourced by the scripts that run on a machine: what several of them need.
# shellcheck shell=bash
set -euo pipefail

# Ends the script with its arguments as the message and what is piped into it as the details.
fail() {
  echo "$*" >&2
  cat >&2
  exit 1
}

install_packages() {
  local log=/var/log/install-packages.log
  echo "Installing $*"
  if ! {
    # Unlike the installation, an update of the lists does not wait for another one that is under way.
    until apt-get update || ((SECONDS > 120)); do sleep 3; done
      # Files that were changed stay as they are; otherwise dpkg would ask.
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -o DPkg::Options::=--force-confold install -y --no-install-recommends "$@"
  } >"$log" 2>&1; then
    tail -n 20 "$log" | fail "apt-get failed; the end of $log:"
  fi
}

# certbot, once nobody else uses it: its timer may be at work.
certbot_in_turn() {
  local output status tries=0
  until output=$(certbot "$@" 2>&1) && status=0 || status=$?; [[ $output != *"Another instance of Certbot"* ]] || ((++tries > 40)); do
    sleep 3
  done
  echo "$output"
  return "$status"
}

# Gives systemd a file on standard input: add_unit_file haproxy.service.d/restart.conf
add_unit_file() {
  local file=/etc/systemd/system/$1 text before
  text=$(cat)
  before=$(cat "$file" 2>/dev/null) || true
  install -D -m 0644 /dev/stdin "$file" <<<"$text"
  [[ $text == "$before" ]] || systemctl daemon-reload
}

# Whatever was done to them by hand meanwhile.
start_units() {
  systemctl unmask --quiet "$@"
  systemctl enable --quiet --now "$@"
}

# Whether certbot's certificate is all there: it writes one file after the other, and may be killed or meet a full disk in between.
whole_lineage() {
  local live=/etc/letsencrypt/live/cluster renewal=/etc/letsencrypt/renewal
  grep -q '^server = ' "$renewal/cluster.conf" && ! compgen -G "$renewal/cluster-*" >/dev/null &&
    [[ $(openssl x509 -noout -pubkey -in "$live/fullchain.pem") == "$(openssl pkey -pubout -in "$live/privkey.pem")" ]]
} 2>/dev/null

# What there is now of a thing that a script sees to, without what is secret in it:
#   package NAME, unit NAME (to be enabled and active), enabled UNIT, file PATH, secret PATH, certificate PATH,
#   lines PATH PATTERN (those that match), settings PATH PATTERN (KEY=SECRET lines of which the key matches)
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
        echo "${line%%=*} $(digest <<<"$line")"
      done
      ;;
    *)
      if ! stat --format '%A %U:%G' "$name" 2>/dev/null; then
        echo "not there"
      elif [[ ! -f $name ]]; then
        return
      elif [[ $kind == file ]]; then
        cat "$name"
      else
        [[ $kind == secret ]] || certificate_facts <"$name"
        digest <"$name"
      fi
      ;;
  esac
}

digest() { sha256sum | sed 's/^\([0-9a-f]*\).*/sha256 \1/'; }

certificate_facts() { openssl x509 -noout -subject -issuer -serial -enddate 2>/dev/null || echo "no certificate"; }

readonly records=/var/lib/ant-media-cluster/kept
record=$records/$(basename "$0" .sh)

# Remembers what this script has seen to, a thing on a line of standard input, for find-drift.sh. Fails nobody.
keep() {
  local item name
  (
    umask 077
    rm -rf "$record.new" && mkdir -p "$record.new" || exit
    while read -ra item; do
      name=${item[*]}
      wanted "${item[@]}" >"$record.new/${name//\//%}" || exit
    done
    rm -rf "$record" && mv "$record.new" "$record"
  ) || echo "What was done could not be remembered, so 'make drift' will find fault with it." >&2
}

# A unit may be in the middle of a start, or wait for what a later script mends.
wanted() {
  case $1 in
    unit) echo "enabled, active" ;;
    enabled) echo enabled ;;
    *) describe "$@" ;;
  esac
}

# Whether a thing is as a record in `records` says. Packages are upgraded, applications deleted in the panel: no fault of anybody.
as_recorded() {
  local item now
  item=$(basename "$1")
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

# Whether everything is as this script left it, or it never ran: what was changed by hand may be in use since.
as_kept() {
  local thing
  for thing in "$record"/*; do
    [[ ! -e $thing ]] || as_recorded "$thing" || return
  done
}
