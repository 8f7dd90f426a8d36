#!/usr/bin/env bash
# Creates the user JamesBond at the first boot, with the instance id as password. Does nothing if conf/initialized exists.
set -euo pipefail

initialized=/usr/local/antmedia/conf/initialized
instance_id=$(cat /var/lib/cloud/data/instance-id)
hash=$(printf %s "$instance_id" | md5sum | cut -d ' ' -f 1)
user="{\"email\": \"JamesBond\", \"password\": \"$hash\", \"scope\": \"system\", \"userType\": \"ADMIN\"}"

for _ in {1..60}; do
  if [[ -e $initialized ]]; then
    exit 0
  fi
  if curl --silent --fail --json "$user" --output /dev/null http://127.0.0.1:5080/rest/v2/users/initial; then
    touch "$initialized"
    exit 0
  fi
  sleep 1
done
echo "The server did not respond within 60 s, so the first user was not created." >&2
exit 1
