#!/usr/bin/env bash
# Waits for cloud-init, then sets the public keys that may log in as this user, installs scripts into a directory and runs
# configure-system.sh. Standard input holds a line "=== NAME VERSION" for each script, and then all scripts, each after a line "=== NAME", compressed with bzip2 in base64.
# usage: sudo install-scripts.sh DIRECTORY KEY... < scripts
set -euo pipefail
directory=$1
shift

# The user data holds only the program's own key, so that another key of the operator replaces no machine.
authorize_keys() {
  local file
  file=$(getent passwd "$SUDO_USER" | cut -d : -f 6)/.ssh/authorized_keys
  install -m 0600 -o "$SUDO_USER" -g "$(id -g "$SUDO_USER")" /dev/stdin "$file.new" < <(printf '%s\n' "$@")
  mv "$file.new" "$file"
}

# Waits until cloud-init has ended, and fails if it failed. cloud-init's own command is slow: it takes a third of a second of CPU time.
# So it runs only if the file reports errors, or if there is no file after a minute.
wait_for_cloud_init() {
  local result=/run/cloud-init/result.json tries=0 status=0
  until [[ -e $result ]] || ((++tries == 600)); do sleep 0.1; done
  ! grep -qsF '"errors": []' "$result" || return 0
  cloud-init status --wait >/dev/null || status=$?
  # Exit code 2 stands for warnings.
  if ((status != 0 && status != 2)); then
    echo "cloud-init failed on this machine:" >&2
    cloud-init status --long | tail -n 20 >&2
    exit 1
  fi
}

wait_for_cloud_init
authorize_keys "$@"
rm -rf "$directory.new"
mkdir -p "$directory.new"
cd "$directory.new"
sed '/^=== /d' | base64 --decode |
  python3 -c 'import bz2, sys; sys.stdout.buffer.write(bz2.decompress(sys.stdin.buffer.read()))' |
  awk '/^=== / { file = $2; next } { print > file }'
chmod 0755 ./*
# One by one: units run these scripts, also after a reboot in the middle.
mkdir -p "$directory"
for file in "$directory"/*; do
  [[ -e ${file##*/} ]] || rm -rf "$file"
done
mv ./* "$directory"
cd "$directory"
rmdir "$directory.new"
./configure-system.sh
