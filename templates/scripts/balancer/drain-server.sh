#!/usr/bin/env bash
# Takes a server out of service before it restarts or its machine is replaced. return-server.sh puts it back.
# usage: drain-server.sh NAME SECONDS SETUP
#   SECONDS   how long its connections may last; 0: do not wait for them
#   SETUP     digest of everything whose change restarts the node. A node that is in service with it is not drained: Pulumi runs
#             this script again for other reasons too, such as another SECONDS.
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/haproxy-servers.sh"
name=$1 seconds=$2 setup=$3
file=$(in_service_file "$name")

if [[ $(cat "$file" 2>/dev/null) == "$setup" ]]; then
  echo "$name does not restart, so it stays in service"
  exit
fi
# Whatever happens next, it no longer serves with the previous settings for certain.
rm -f "$file"
drain_servers "$seconds" "$name"
