# Put before every script that runs on a machine: what several of them need.
# shellcheck shell=bash
set -euo pipefail

# Ends the script with its arguments as the message and what is piped into it as the details.
fail() {
  echo "$*" >&2
  cat >&2
  exit 1
}

wait_for_cloud_init() {
  local status=0
  cloud-init status --wait >/dev/null || status=$?
  # 2 stands for warnings.
  if ((status != 0 && status != 2)); then
    cloud-init status --long | tail -n 20 | fail "cloud-init failed on this machine:"
  fi
}

install_packages() {
  local log=/var/log/install-packages.log
  echo "Installing $*"
  if ! {
    apt-get -o DPkg::Lock::Timeout=120 update &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
  } >"$log" 2>&1; then
    tail -n 20 "$log" | fail "apt-get failed; the end of $log:"
  fi
}
