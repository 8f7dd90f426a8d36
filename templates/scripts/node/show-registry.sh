#!/usr/bin/env bash
# Prints what Ant Media Server on this node knows of the cluster registry, for operations/status/registry.py:
#   === APPLICATION
#   key DIGEST       The digest of the key with which nodes authenticate to each other.
#   plays FILE       A playlist that this node has written in the last 10 seconds.
#   answer STATUS    The status of the application's REST API, if it is not 200.
#   known JSON       A page of the registry's streams.
# usage: show-registry.sh
source "$(dirname "$0")/prelude.sh"
webapps=/usr/local/antmedia/webapps
# An application with more streams than these pages hold is not compared.
readonly page_size=50 pages=20

print_key() {
  local key
  key=$(sed -n 's/^clusterCommunicationKey=//p' "$webapps/$1/WEB-INF/red5-web.properties")
  [[ -z $key ]] || echo "key $(print_digest <<<"$key" | cut -d ' ' -f 2)"
}

print_played() {
  [[ ! -d $webapps/$1/streams ]] ||
    find "$webapps/$1/streams" -maxdepth 2 -name '*.m3u8' -newermt '-10 seconds' -printf 'plays %f\n'
}

print_known() {
  local answer page
  for ((page = 0; page < pages; page++)); do
    answer=$(curl --silent --max-time 8 --write-out '\n%{http_code}' \
      "http://127.0.0.1:5080/$1/rest/v2/broadcasts/list/$((page * page_size))/$page_size") || true
    if [[ ${answer##*$'\n'} != 200 ]]; then
      echo "answer ${answer##*$'\n'}"
      return
    fi
    answer=$(tr -d '\n' <<<"${answer%$'\n'*}")
    echo "known $answer"
    [[ $answer == *streamId* ]] || return 0
  done
}

for application in "$webapps"/*/WEB-INF/red5-web.properties; do
  application=${application#"$webapps"/}
  application=${application%%/*}
  [[ $application == root ]] && continue
  echo "=== $application"
  print_key "$application"
  print_played "$application"
  print_known "$application"
done
