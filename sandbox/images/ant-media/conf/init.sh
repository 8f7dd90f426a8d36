#!/usr/bin/env bash
# First boot: user JamesBond with the instance's id as password. conf/initialized says that it was done, or is not wanted.
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
echo "the server did not answer within a minute: no first user" >&2
exit 1
