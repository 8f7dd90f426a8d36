#!/usr/bin/env bash
# Waits until Ant Media Server has uploaded its finished recordings to S3. ant-media-uploads.service runs it before the server stops,
# also when the machine is terminated: the server uploads in the background, and does not try again after a restart.
source "$(dirname "$0")/prelude.sh"
# Seconds. EC2 ends a machine that takes some minutes to shut down.
readonly limit=120

# Prints the recordings that are still on the disk, where an application uploads them. The server deletes those that it has uploaded,
# and keeps those that S3 refused, which are older.
list_pending() {
  local properties streams
  for properties in /usr/local/antmedia/webapps/*/WEB-INF/red5-web.properties; do
    streams=${properties%/WEB-INF/*}/streams
    if grep -q '^s3RecordingEnabled=true' "$properties" && [[ -d $streams ]]; then
      find "$streams" -name '*.mp4' -newermt '-10 minutes'
    fi
  done
}

until pending=$(list_pending) && [[ -z $pending ]]; do
  if ((SECONDS > limit)); then
    echo "Not uploaded within $limit s: ${pending//$'\n'/, }"
    break
  fi
  sleep 1
done
