#!/usr/bin/env bash
# Sets up Ant Media Server on a node: installs or upgrades it, sets the licence and the mode, starts the server and creates the
# panel's administrator.
# Ends when the server is ready: every application serves, and the cluster registry lists the node as alive.
# usage: set-up-media-node.sh SOURCE cluster|standalone PANEL_EMAIL SETTINGS LIVE_SETTINGS APPLICATION... < secrets
#   SOURCE          installed: the image contains the server; install: by Ant Media's installer; zip:SHA256: from a zip
#   SETTINGS        server settings that take effect at a start, as set-server-settings.py reads them
#   LIVE_SETTINGS   those that the running server takes over
#   Standard input has seven lines: licence key (or empty), panel password, database URL (or empty), SETTINGS that are secret (or empty),
#   URL of the zip (or empty), a secret that all nodes share, and the id of the registry's data (or empty).
source "$(dirname "$0")/prelude.sh"
server_source=$1 mode=$2 panel_email=$3 server_settings=$4 live_settings=$5
applications=("${@:6}")
ams=/usr/local/antmedia
# Stands in for secrets in arguments, which every user of the machine can read.
readonly placeholder=ant-media-cluster-placeholder
# Exists when Ant Media's installer has succeeded.
readonly installed=/var/lib/ant-media-cluster/installed
# Holds the fingerprint of the settings that the running server was started with.
readonly started_with=/var/lib/ant-media-cluster/started-with

# Ends a run that an interrupted update left behind: nothing ends it when the connection of its update is gone.
end_previous_run() {
  local lock=/run/lock/set-up-media-node group
  exec 9<>"$lock"
  if ! flock --nonblock 9; then
    read -r group <&9
    kill -- "-$group" || true
    flock --timeout 30 9 || fail "Another run of this script (process group $group) does not end on this node." </dev/null
  fi
  # The fifth field is the process group. `timeout`, which starts the script, makes one.
  cut -d ' ' -f 5 "/proc/$$/stat" >"$lock"
}

# Ant Media's installer, which always installs the newest release. The commit is in its repository ant-media/Scripts.
readonly installer_commit=62c2a01ad80d4ee12299239a37b6761fcacae9b9
readonly installer_sha256=c9767bcb5f16513b02b31acaf2076df797234db1bfddcd584c1452739293506a

# A file is only in effect on the machine that wrote it: an image of a node contains the node's files.
is_of_this_machine() { [[ -e $1 && $(<"$1") == "$(cat /var/lib/cloud/data/instance-id)" ]]; }

mark_for_this_machine() {
  mkdir -p "$(dirname "$1")"
  cat /var/lib/cloud/data/instance-id >"$1"
}

install_server() {
  local has_zip=/var/lib/ant-media-cluster/has-zip
  if [[ $server_source == zip:* ]]; then
    "$(dirname "$0")/install-ant-media-server.sh" "${server_source#zip:}" "$mode" <<<"$zip_url" 9>&-
    mark_for_this_machine "$has_zip"
  elif [[ -d $ams.previous ]]; then
    # The server of a zip that never became ready.
    "$(dirname "$0")/install-ant-media-server.sh" "$(cat "$ams.previous/zip.sha256" 2>/dev/null)" "$mode" <<<"" 9>&-
    rm -f "$has_zip"
  elif is_of_this_machine "$has_zip"; then
    fail "This machine runs the server of an amsZip, which is not set any more. Set amsZip to the version that the node shall run, or mediaImage to another image, which replaces the machine." </dev/null
  elif [[ $server_source == install ]]; then
    run_installer
  fi
}

# After an installation that failed halfway the installer runs again: it moves a present folder away.
run_installer() {
  local log=/var/log/install-ant-media.log installer
  # Earlier versions of this script did not write the first file.
  [[ ! -e $started_with ]] || touch "$installed"
  [[ ! -e $installed ]] || return 0
  echo "Installing Ant Media Server"
  installer=$(mktemp)
  rm -rf /root/ant-media-server
  # The installer is sourced, not run, so that the licence key is on no command line.
  if ! {
    curl --fail --silent --show-error --location --retry 5 --output "$installer" \
      "https://raw.githubusercontent.com/ant-media/Scripts/$installer_commit/install_ant-media-server.sh" &&
      sha256sum --check --quiet <<<"$installer_sha256 $installer" &&
      (
        cd /root
        set -- -l "$licence_key"
        set +eu
        # shellcheck source=/dev/null
        . "$installer"
      )
  } >"$log" 2>&1 9>&- || ! grep -qF "Ant Media Server is installed and started." "$log"; then
    tail -n 20 "$log" | hide_secrets | fail "Ant Media's installer failed. The end of $log:"
  fi
  install -D -m 0600 /dev/null "$installed"
}

# Copies standard input to standard output with *** in place of secrets.
hide_secrets() {
  local text secret
  text=$(cat)
  for secret in "$licence_key" "$panel_password" "$database_url" "$zip_url"; do
    [[ -z $secret ]] || text=${text//"$secret"/***}
  done
  echo "$text"
}

# Replaces text in a file: replace_in_file FILE OLD NEW. Perl gets the texts on standard input, not in its arguments or environment.
replace_in_file() {
  cp -p "$1" "$1.new"
  printf '%s\n%s\n' "$2" "$3" | perl -e '
    chomp(my $old = <STDIN>); chomp(my $new = <STDIN>);
    open(my $in, "<", $ARGV[0]) or die $!; local $/; my $text = <$in>; close $in;
    $text =~ s/\Q$old\E/$new/g;
    open(my $out, ">", "$ARGV[0].new") or die $!; print $out $text or die $!; close $out or die $!;' "$1"
  mv "$1.new" "$1"
}

# Prints a digest of the settings that require a restart. The server's files are not part of it, since the server changes them.
# In a registry without the data of the last start, the server registers its node again, but never the streams that are live.
print_fingerprint() {
  {
    printf '%s\n' "$mode" "$licence_key" "$database_url" "$registry"
    [[ $server_settings$server_secrets == "{}" ]] || printf '%s\n' "$server_settings" "$server_secrets"
    cat "$ams/zip.sha256" 2>/dev/null || true
  } | sha256sum
}

# Ant Media's health check (/rest/v2/liveness) returns 500 while the machine's own name does not resolve.
resolve_own_name() {
  getent hosts "$(hostname)" >/dev/null || echo "127.0.1.1 $(hostname)" >>/etc/hosts
}

# Sets the licence. Without one in the settings, restores the licence that the server had before this script first set one.
set_licence() {
  local former=/var/lib/ant-media-cluster/former-licence licensed=/var/lib/ant-media-cluster/licensed licence=$licence_key now
  if [[ -z $licence_key ]]; then
    [[ -e $former ]] || return 0
    licence=$(<"$former")
  fi
  now=$(sed -n 's/^server\.licence_key=//p' "$ams/conf/red5.properties")
  if [[ $now != "$licence" ]] || ! is_of_this_machine "$licensed"; then
    [[ -e $former ]] || install -D -m 0600 /dev/stdin "$former" <<<"$now"
    # The instance id belongs to the previous licence, or to the machine that the image was made of.
    rm -f "$ams/conf/instanceId" "$started_with"
    sed -i "s/^server\.licence_key=.*/server.licence_key=$placeholder-licence/" "$ams/conf/red5.properties"
    replace_in_file "$ams/conf/red5.properties" "$placeholder-licence" "$licence"
    mark_for_this_machine "$licensed"
  fi
  [[ -n $licence_key ]] || rm "$former"
}

# Runs change_server_mode.sh without its stop and start of the server. This script restarts it once, when all files are written.
change_mode() {
  (
    # shellcheck disable=SC2317,SC2329  # change_server_mode.sh calls it
    service() { :; }
    export -f service
    "$ams/change_server_mode.sh" "$@" </dev/null >/var/log/change-server-mode.log 2>&1
  ) || true
}

join_cluster() {
  local file scheme=${database_url%%://*}
  # The server accepts rediss://, change_server_mode.sh does not.
  [[ $scheme == rediss ]] && scheme=redis
  change_mode cluster "$scheme://$placeholder"
  if ! grep -qF "$placeholder" "$ams/conf/red5.properties"; then
    tail -n 10 /var/log/change-server-mode.log | fail "change_server_mode.sh did not write the database URL. The end of its output:"
  fi
  grep -rlF "$placeholder" "$ams/conf" "$ams"/webapps/*/WEB-INF | while read -r file; do
    chmod o-rwx "$file"
    replace_in_file "$file" "$scheme://$placeholder" "$database_url"
  done
}

# Gives the installed applications the keys that their nodes share. Without them each server draws its own and follows the registry. But
# AntMediaApplicationAdapter.updateSettings only compares times, so two new nodes that save theirs in the same millisecond never agree.
share_keys() {
  local file key
  for file in "$ams"/webapps/*/WEB-INF/red5-web.properties; do
    # The server copies the file of `root` for an application that is created later, whose keys each node draws.
    [[ $file != */root/* ]] || continue
    for key in clusterCommunicationKey subscriberAuthenticationKey; do
      # The server reads the last line of a key, and writes an empty one for null.
      ! grep -q "^$key=." "$file" || continue
      cp -p "$file" "$file.new"
      printf '\n%s=%s\n' "$key" "$(printf '%s %s' "$shared_secret" "$file $key" | sha256sum | cut -c 1-32)" >>"$file.new"
      mv "$file.new" "$file"
    done
  done
}

leave_cluster() {
  # Only a node that this script put into cluster mode has this file.
  local file=/etc/systemd/system/antmedia.service.d/restart.conf
  if [[ -e $file ]]; then
    change_mode standalone
    rm "$file"
    systemctl daemon-reload
  fi
}

# The server stops with exit code 0 when it cannot reach its database. The database's machine may boot after the node. When the
# node's machine stops, the server leaves the registry before its proxy (haproxy) stops.
keep_restarting() {
  add_unit_file antmedia.service.d/restart.conf <<END
[Unit]
After=haproxy.service
[Service]
Restart=always
RestartSec=5
END
}

# Whenever the server stops, systemd stops this unit before it.
finish_uploads_before_stop() {
  add_unit_file ant-media-uploads.service <<END
[Unit]
Description=Uploads of Ant Media Server are finished before it stops
After=antmedia.service
PartOf=antmedia.service
# It starts with the server, however often that fails.
StartLimitIntervalSec=0
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=$(dirname "$0")/finish-uploads.sh
TimeoutStopSec=150
[Install]
WantedBy=antmedia.service
END
  start_units ant-media-uploads.service
}

# Prints liveness and applications that do not serve. These are the requests of HAProxy's health check (haproxy.cfg), from one curl.
list_unready() {
  local name status options=(--silent --max-time 5 --output /dev/null --write-out '%{http_code}\n') requests
  requests=("${options[@]}" http://127.0.0.1:5080/rest/v2/liveness)
  for name in "${applications[@]}"; do
    requests+=(--next "${options[@]}" --request OPTIONS "http://127.0.0.1:5080/$name/streams/~.m3u8")
  done
  for name in liveness "${applications[@]}"; do
    read -r status
    # 000 stands for no response.
    [[ $status == 200 || ($name != liveness && ($status == [23]* || $status == 404)) ]] || echo "$name: $status"
  done < <(curl "${requests[@]}")
}

# Prints the last cause of an exception in the server's log, or its last lines if it has none.
print_cause() {
  local log=/var/log/antmedia/antmedia-error.log
  {
    grep '^Caused by:' "$log" | tail -n 1 | grep . || tail -n 3 "$log" | grep . ||
      journalctl --unit antmedia --lines 5 --no-pager --output cat
  } 2>/dev/null | cut -c 1-400 | hide_secrets
}

count_restarts() { systemctl show antmedia --property NRestarts --value; }

wait_until_ready() {
  # On a busy machine a start took 208 s.
  local limit=300 most_restarts=5 restarts unready
  restarts=$(count_restarts)
  until unready=$(list_unready) && [[ -z $unready ]]; do
    if (($(count_restarts) - restarts >= most_restarts)); then
      print_cause | fail "Ant Media Server does not start: it ended $most_restarts times. Its log says:"
    elif ((SECONDS > started + limit)); then
      print_cause |
        fail "Ant Media Server is not ready $((SECONDS - started)) seconds after its start (${unready//$'\n'/, }). Its log says:"
    fi
    sleep 0.5
  done
}

# Without an administrator the first visitor of the panel becomes one. The panel sends the MD5 of a password, so this does too.
create_administrator() {
  local answer password
  password=$(printf '%s' "$panel_password" | md5sum | cut -d ' ' -f 1)
  answer=$(printf '{"email":"%s","password":"%s","scope":"system","userType":"ADMIN"}' "$panel_email" "$password" |
    curl --silent --show-error --max-time 20 --header 'Content-Type: application/json' --data @- http://127.0.0.1:5080/rest/v2/users/initial)
  if [[ $answer == *'"success":true'* ]]; then
    echo "Created the panel's administrator $panel_email"
  fi
}

# Sends a request to the management REST API with the session of log_in: request_api METHOD PATH [< BODY]
request_api() {
  curl --silent --show-error --fail --max-time 20 --cookie "$session" --cookie-jar "$session" --request "$1" \
    --header 'Content-Type: application/json' "${@:3}" "http://127.0.0.1:5080/rest/v2/$2"
}

log_in() {
  local password
  password=$(printf '%s' "$panel_password" | md5sum | cut -d ' ' -f 1)
  printf '{"email":"%s","password":"%s"}' "$panel_email" "$password" |
    request_api POST users/authenticate --data @- | grep -q '"success":true'
}

# A node without the program's own registry needs no proxy to it.
remove_registry_proxy() {
  [[ -e $records/set-up-registry-proxy ]] || return 0
  systemctl --quiet disable --now haproxy
  rm -rf /etc/haproxy/haproxy.cfg "$records/set-up-registry-proxy"
}

# Prints this node's entry in the cluster registry. The API returns pages.
print_registry_entry() {
  local address offset=0 page
  address=$(ip -4 -o route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')
  while page=$(request_api GET "cluster/nodes/$offset/50") && [[ $page == *'"ip"'* ]]; do
    grep -o "{[^{}]*\"ip\":\"$address\"[^{}]*}" <<<"$page" && return
    ((offset += 50))
  done
  echo "no entry"
}

# Waits until the cluster registry lists this node as alive.
wait_until_registered() {
  local limit=60 entry
  session=$(mktemp)
  if ! log_in; then
    echo "The cluster registry was not checked: $panel_email cannot log in with panelPassword"
    return
  fi
  until entry=$(print_registry_entry) && [[ $entry == *'"status":"alive"'* ]]; do
    if ((SECONDS > started + limit)); then
      print_cause | fail "The cluster registry does not list this node as alive (${entry:-no answer}). Its log says:"
    fi
    sleep 0.5
  done
  rm "$session"
}

IFS= read -r licence_key
IFS= read -r panel_password
IFS= read -r database_url
IFS= read -r server_secrets
IFS= read -r zip_url
IFS= read -r shared_secret
IFS= read -r registry

end_previous_run
install_server
# Checked before this script writes the files again.
changed_by_hand=$(unchanged_since_last_run || echo yes)
resolve_own_name
set_licence
if [[ $mode == cluster ]]; then
  join_cluster
  share_keys
  keep_restarting
else
  leave_cluster
fi
set_names=$("$(dirname "$0")/set-server-settings.py" at-start "$server_settings" <<<"$server_secrets")
started=$SECONDS
enable_units antmedia
if [[ -n $changed_by_hand || $(print_fingerprint) != "$(cat "$started_with" 2>/dev/null)" ]] || ! systemctl --quiet is-active antmedia; then
  echo "Starting Ant Media Server in $mode mode"
  # If this run fails from here on, the next one starts the server again.
  rm -f "$started_with"
  systemctl restart antmedia
fi
wait_until_ready
finish_uploads_before_stop
# The server before the upgrade.
rm -rf "$ams.previous"
install -D -m 0600 /dev/stdin "$started_with" <<<"$(print_fingerprint)"
# Records only the settings that this script writes before a start: the server and its panel write the others.
{
  echo "unit antmedia.service"
  echo "unit ant-media-uploads.service"
  echo "settings $ams/conf/red5.properties clusterdb[.](host|user|password)${licence_key:+|server[.]licence_key}${set_names:+|$set_names}"
  printf "settings %s db[.](type|host|user|password)\n" "$ams"/webapps/*/WEB-INF/red5-web.properties
  echo "lines $ams/conf/jee-container.xml cluster (start|end)"
  [[ $mode != cluster ]] || echo "file /etc/systemd/system/antmedia.service.d/restart.conf"
} | save_record
create_administrator
"$(dirname "$0")/set-server-settings.py" live "$panel_email" "$live_settings" <<<"$panel_password"
if [[ $mode == cluster ]]; then
  started=$SECONDS
  wait_until_registered
fi
[[ $database_url == *@127.0.0.1:6379 ]] || remove_registry_proxy
echo "Ant Media Server runs in $mode mode"
