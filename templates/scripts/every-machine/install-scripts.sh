#!/usr/bin/env bash
# Waits for cloud-init and grows the root file system to the size of its volume. Then sets the public keys that may log in as this user,
# installs scripts into a directory and runs configure-system.sh. Standard input holds a line "=== NAME VERSION" for each script, and then
# all scripts, each after a line "=== NAME", compressed with bzip2 in base64.
# usage: sudo install-scripts.sh DIRECTORY VOLUME_GIB KEY... < scripts
set -euo pipefail
directory=$1 volume_gib=$2
shift 2

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

# In sectors of 512 bytes, as sysfs counts on every disk.
readonly gib=$((1024 * 1024 * 2))

# Grows the root partition and file system to the disk, as cloud-init does at each boot: AWS enlarges the volume of a running machine.
# A machine whose root file system is not on a partition, such as a container, has nothing to grow.
grow_root() {
  local partition disk tries=0 growing=/run/ant-media-cluster-grows-root
  partition=$(readlink --canonicalize-missing "/sys/dev/block/$(mountpoint --fs-devno /)")
  [[ -e $partition/partition ]] || return 0
  disk=${partition%/*}
  # The kernel learns the new size when AWS's modification of the volume is in the state "optimizing", for which the provider waits.
  until (($(<"$disk/size") >= volume_gib * gib)); do
    if ((++tries == 600)); then
      echo "The disk ${disk##*/} has $(($(<"$disk/size") / gib)) GiB, and volumeSize is $volume_gib: AWS has not enlarged the volume." \
        "Run make up again." >&2
      exit 1
    fi
    sleep 0.1
  done
  # The file is there after a run that ended between partition and file system. A reboot deletes it, and grows both.
  (($(count_free_sectors) < gib)) || touch "$growing"
  [[ -e $growing ]] || return 0
  if ! run_cloud_init growpart || ! run_cloud_init resizefs || (($(count_free_sectors) >= gib)); then
    echo "cloud-init did not grow the root file system on ${partition##*/} to $volume_gib GiB. The end of /var/log/cloud-init.log:" >&2
    tail -n 20 /var/log/cloud-init.log >&2
    exit 1
  fi
  rm "$growing"
  echo "Grew the root file system to $volume_gib GiB"
}

# Runs a module of cloud-init. It ends with exit code 0 also where it grew no partition.
run_cloud_init() { cloud-init single --name "$1" --frequency always </dev/null >/dev/null; }

# Prints how many sectors of the disk are behind the root partition.
count_free_sectors() { echo $(($(<"$disk/size") - $(<"$partition/start") - $(<"$partition/size"))); }

wait_for_cloud_init
# First, because the disk may be full. growpart itself needs some kilobytes, which ext4 reserves for root.
grow_root
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
