#!/usr/bin/env bash
# Everything that the sandbox and the tests need on this machine: packages, Python environment, Pulumi engine and plugins.
# Safe to run again at any time; what is there already is left alone, in about a second.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ant-media-cluster
venv=$root/.venv
log=$cache/setup.log

fail() {
  echo "$*" >&2
  exit 1
}

# Runs a long command with its output in the log; says what runs and, every ten seconds, for how long and how far it is.
step() {
  local what=$1 started=$SECONDS pid
  shift
  echo "==> $what"
  "$@" >>"$log" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null' EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - started > 0 && (SECONDS - started) % 10 == 0 && SECONDS != last_said)); then
      echo "    … $((SECONDS - started)) s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
      last_said=$SECONDS
    fi
  done
  trap - EXIT
  if ! wait "$pid"; then
    tail -n 20 "$log" >&2
    fail "$what: failed; the whole output is in $log"
  fi
  echo "    done in $((SECONDS - started)) s"
}
last_said=0

check_machine() {
  [[ $(uname -s) == Linux && -e /etc/debian_version ]] || fail "The sandbox needs a Debian machine (12 or newer) or an Ubuntu one (24.04 or newer); this is $(uname -s)."
  ((EUID == 0)) || fail "The sandbox needs root, because it boots machines in namespaces of their own; run the command with sudo."
}

install_packages() {
  local package missing=()
  while read -r package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done <"$root/sandbox/packages.txt"
  ((${#missing[@]} == 0)) && return
  step "Updating the list of packages" apt-get -o DPkg::Lock::Timeout=120 update
  step "Installing ${missing[*]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"
}

# A virtual environment with what the requirements files say, made anew when they change.
make_python_environment() {
  local environment=$1 wanted
  shift
  wanted=$(cat "$@" | sha256sum)
  [[ -e $environment/requirements.sha256 && $(<"$environment/requirements.sha256") == "$wanted" ]] && return
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed; this is $(python3 --version)."
  step "Making the Python environment ${environment#"$root/"}" python3 -m venv --clear "$environment"
  step "Installing Python packages" "$environment/bin/pip" install --disable-pip-version-check --progress-bar off --no-compile \
    "${@/#/--requirement=}"
  echo "$wanted" >"$environment/requirements.sha256"
}

check_machine
mkdir -p "$cache"
install_packages
make_python_environment "$venv" "$root"/requirements*.txt "$root/sandbox/requirements.txt"
# On its own, for it wants an older cryptography.
make_python_environment "$venv/sslyze" "$root/tests/requirements-sslyze.txt"
# The policy pack's is its own too, as Pulumi has it: its SDK wants an older protobuf.
make_python_environment "$root/policy/.venv" "$root/policy/requirements.txt"
# shellcheck source=engine.sh
source "$root/sandbox/engine.sh"
find_engine
find_plugins
# shellcheck source=actionlint.sh
source "$root/sandbox/actionlint.sh"
find_actionlint
