#!/usr/bin/env bash
# Makes a machine a serving node of the cluster: licence, cluster mode, start, first administrator.
# usage: set-up-media-node.sh install|installed cluster|standalone PANEL_EMAIL
# standard input, three lines: licence key (or empty), panel password, database URL (or empty)
source "$(dirname "$0")/prelude.sh"
image=$1 mode=$2 panel_email=$3
ams=/usr/local/antmedia
# Stands in for secrets on command lines, where everybody on the machine could read them.
readonly placeholder=ant-media-cluster-placeholder
# The fingerprint of what the running server was started with.
readonly started_with=/var/lib/ant-media-cluster/started-with

install_ant_media() {
  local log=/var/log/install-ant-media.log installer
  [[ -d $ams ]] && return
  echo "Installing Ant Media Server"
  installer=$(mktemp)
  # Sourced with arguments of its own, so that the licence key is on no command line.
  if ! {
    curl --fail --silent --show-error --location --retry 5 --output "$installer" \
      https://raw.githubusercontent.com/ant-media/Scripts/master/install_ant-media-server.sh &&
      (
        cd /root
        set -- -l "$licence_key"
        set +eu
        # shellcheck source=/dev/null
        . "$installer"
      )
  } >"$log" 2>&1; then
    tail -n 20 "$log" | without_secrets | fail "Ant Media's installer failed; the end of $log:"
  fi
}

without_secrets() {
  local text secret
  text=$(cat)
  for secret in "$licence_key" "$panel_password" "$database_url"; do
    [[ -z $secret ]] || text=${text//"$secret"/***}
  done
  echo "$text"
}

# Replaces text in a file, both given on standard input: in no command line and no environment.
replace_in_file() {
  cp -p "$1" "$1.new"
  printf '%s\n%s\n' "$2" "$3" | perl -e '
    chomp(my $old = <STDIN>); chomp(my $new = <STDIN>);
    open(my $in, "<", $ARGV[0]) or die $!; local $/; my $text = <$in>; close $in;
    $text =~ s/\Q$old\E/$new/g;
    open(my $out, ">", "$ARGV[0].new") or die $!; print $out $text or die $!; close $out or die $!;' "$1"
  mv "$1.new" "$1"
}

# Of what decides how the server must be started. Not of its files: the server changes them too.
fingerprint() { printf '%s\n' "$mode" "$licence_key" "$database_url" | sha256sum; }

# Ant Media's liveness answers 500 while the machine's own name does not resolve.
resolve_own_name() {
  getent hosts "$(hostname)" >/dev/null || echo "127.0.1.1 $(hostname)" >>/etc/hosts
}

set_licence() {
  [[ -n $licence_key ]] || return 0
  local now
  now=$(sed -n 's/^server\.licence_key=//p' "$ams/conf/red5.properties")
  [[ $now == "$licence_key" ]] && return
  # The instance id was made for the licence before.
  rm -f "$ams/conf/instanceId"
  sed -i "s/^server\.licence_key=.*/server.licence_key=$placeholder-licence/" "$ams/conf/red5.properties"
  replace_in_file "$ams/conf/red5.properties" "$placeholder-licence" "$licence_key"
}

# change_server_mode.sh stops and starts the server itself: here that is done once, at the end, when the files are whole.
change_mode() {
  (
    # shellcheck disable=SC2317,SC2329  # called by the script
    service() { :; }
    export -f service
    "$ams/change_server_mode.sh" "$@" </dev/null >/var/log/change-server-mode.log 2>&1
  ) || true
}

join_cluster() {
  local file scheme=${database_url%%://*}
  # change_server_mode.sh takes no rediss://, the server does.
  [[ $scheme == rediss ]] && scheme=redis
  change_mode cluster "$scheme://$placeholder"
  if ! grep -qF "$placeholder" "$ams/conf/red5.properties"; then
    tail -n 10 /var/log/change-server-mode.log | fail "change_server_mode.sh did not set the database:"
  fi
  grep -rlF "$placeholder" "$ams/conf" "$ams"/webapps/*/WEB-INF | while read -r file; do
    chmod o-rwx "$file"
    replace_in_file "$file" "$scheme://$placeholder" "$database_url"
  done
}

leave_cluster() {
  # A node that was never in one is left alone.
  local file=/etc/systemd/system/antmedia.service.d/restart.conf
  if [[ -e $file ]]; then
    change_mode standalone
    rm "$file"
    systemctl daemon-reload
  fi
}

# Without its database the server stops, and says that all is well; a node may well boot before the database.
keep_trying_to_start() {
  add_unit_file antmedia.service.d/restart.conf <<END
[Service]
Restart=always
RestartSec=5
END
}

answers() { curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:5080/rest/v2/liveness"; }

wait_until_it_serves() {
  until answers; do
    if ((SECONDS > started + 180)); then
      {
        journalctl --unit antmedia --lines 5 --no-pager --output cat
        tail -n 10 /var/log/antmedia/antmedia-error.log
      } 2>/dev/null | cut -c 1-400 | without_secrets |
        fail "Ant Media Server does not serve $((SECONDS - started)) seconds after its start. Its log ends:"
    fi
    sleep 1
  done
}

# HAProxy wants three good checks, two seconds apart, of a server that was away; until then the next node must not go.
wait_for_haproxy() {
  local up
  up=$(systemctl show --property ActiveEnterTimestampMonotonic --value antmedia)
  if (($(cut -d . -f 1 /proc/uptime) - up / 1000000 < 60)); then
    sleep 8
  fi
}

# Otherwise the first visitor of the panel becomes its administrator. The server keeps the MD5 that its panel sends.
create_administrator() {
  local answer password
  password=$(printf '%s' "$panel_password" | md5sum | cut -d ' ' -f 1)
  answer=$(printf '{"email":"%s","password":"%s","scope":"system","userType":"ADMIN"}' "$panel_email" "$password" |
    curl --silent --show-error --max-time 20 --header 'Content-Type: application/json' --data @- http://127.0.0.1:5080/rest/v2/users/initial)
  if [[ $answer == *'"success":true'* ]]; then
    echo "Created the panel's administrator $panel_email"
  fi
}

IFS= read -r licence_key
IFS= read -r panel_password
IFS= read -r database_url

if [[ $image == install ]]; then
  install_ant_media
fi
# Before it is put right again.
changed_by_hand=$(as_kept || echo yes)
resolve_own_name
set_licence
if [[ $mode == cluster ]]; then
  join_cluster
  keep_trying_to_start
else
  leave_cluster
fi
started=$SECONDS
systemctl unmask --quiet antmedia
systemctl enable --quiet antmedia
if [[ -n $changed_by_hand || $(fingerprint) != "$(cat "$started_with" 2>/dev/null)" ]] || ! systemctl --quiet is-active antmedia; then
  echo "Starting Ant Media Server in $mode mode"
  systemctl restart antmedia
fi
wait_until_it_serves
install -D -m 0600 /dev/stdin "$started_with" <<<"$(fingerprint)"
# Of its settings those that decide which cluster it is in, as whom; the server and its panel write others.
{
  echo "unit antmedia.service"
  echo "settings $ams/conf/red5.properties clusterdb[.](host|user|password)${licence_key:+|server[.]licence_key}"
  printf "settings %s db[.](type|host|user|password)\n" "$ams"/webapps/*/WEB-INF/red5-web.properties
  echo "lines $ams/conf/jee-container.xml cluster (start|end)"
  [[ $mode != cluster ]] || echo "file /etc/systemd/system/antmedia.service.d/restart.conf"
} | keep
create_administrator
wait_for_haproxy
echo "Ant Media Server serves in $mode mode"
