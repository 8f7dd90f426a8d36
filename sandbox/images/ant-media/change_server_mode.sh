#!/usr/bin/env bash
# Switches the stand-in between standalone and cluster mode.
# Arguments, questions and changed files are those of the script in Ant Media Server 3.0.
set -euo pipefail

home=/usr/local/antmedia

print_usage() {
  cat <<USAGE
Usage:
  $0 cluster DATABASE      DATABASE: mongodb://…, mongodb+srv://…, redis://…, or the path of a Redisson file
  $0 standalone [DATABASE]
Put the URL in quotes.
USAGE
}

# Asks for confirmation if the argument does not look like a database. Without an answer the node stays unchanged.
confirm_database() {
  case $1 in
    mongodb://* | mongodb+srv://* | redis://* | 127.0.0.1 | localhost) return ;;
  esac
  if [[ -f $1 ]]; then
    return
  fi
  echo "WARNING: the database is not a mongodb://, mongodb+srv:// or redis:// URL, and not a file."
  echo "Is this correct? (y/n)"
  local answer=
  read -r answer || true
  if [[ $answer != [yY] ]]; then
    echo "Cancelled."
    exit 1
  fi
}

print_database_type() {
  case $1 in
    "") echo mapdb ;;
    mongo* | localhost* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) echo mongodb ;;
    *) echo redisdb ;;
  esac
}

# set_property FILE KEY VALUE. Uses sed's `c` command, because `s` would interpret the & of URLs.
set_property() {
  sed -i "/^$2=/c\\$2=${3//\\/\\\\}" "$1"
}

toggle_cluster_beans() {
  local file=$home/conf/jee-container.xml
  if [[ $1 == on ]]; then
    sed -i -E 's/<!-- cluster start( -->)?/<!-- cluster start -->/; s/(<!-- )?cluster end -->/<!-- cluster end -->/' "$file"
  else
    sed -i -E 's/<!-- cluster start( -->)?/<!-- cluster start/; s/(<!-- )?cluster end -->/cluster end -->/' "$file"
  fi
}

# Adds the host name to /etc/hosts: the server does not run unless it resolves.
add_host_name() {
  local name address new
  name=$(cat /proc/sys/kernel/hostname)
  address=$(ip -4 -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
  new=$(grep -vwF "$name" /etc/hosts || true)
  printf '%s\n%s %s\n' "$new" "$address" "$name" >/etc/hosts
}

mode=${1:-} database=${2:-}
if [[ $mode != cluster && $mode != standalone ]] || [[ $mode == cluster && -z $database ]]; then
  echo "ERROR: give the mode cluster or standalone, and for cluster the database." >&2
  print_usage >&2
  exit 1
fi
if [[ -n $database ]]; then
  confirm_database "$database"
fi

echo "Mode: $mode"
echo "Database type: $(print_database_type "$database")"
if [[ $mode == cluster ]]; then
  toggle_cluster_beans on
else
  toggle_cluster_beans off
fi

set_property "$home/conf/red5.properties" clusterdb.host "$database"
set_property "$home/conf/red5.properties" clusterdb.user "${3:-}"
set_property "$home/conf/red5.properties" clusterdb.password "${4:-}"
set_property "$home/conf/red5.properties" useGlobalIp false
for file in "$home"/webapps/*/WEB-INF/red5-web.properties; do
  set_property "$file" db.type "$(print_database_type "$database")"
  set_property "$file" db.host "$database"
  set_property "$file" db.user "${3:-}"
  set_property "$file" db.password "${4:-}"
done
add_host_name

echo "Restarting in $mode mode."
service antmedia stop
service antmedia start
