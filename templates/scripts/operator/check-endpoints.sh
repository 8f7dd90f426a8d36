#!/usr/bin/env bash
# Checks every public port of the cluster from the operator's machine.
# environment:
#   DOMAIN
#   APPLICATIONS   separated by spaces
#   ADDRESS        of the load balancer
#   RTMP_PORTS     the ports of RTMP and RTMPS, separated by a space; empty: these are not checked
#   TRUST          the trusted CA certificates: system, any (every certificate is accepted) or a PEM
set -euo pipefail
# macOS has bash 3.2, which needs this for patterns in [[ ]], and takes an empty array for an unset variable.
shopt -s extglob
failed=0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tls_options=()
case $TRUST in
  system) ;;
  # For Let's Encrypt's staging directory, which no machine trusts.
  any) tls_options=(--insecure) ;;
  *)
    echo "$TRUST" >"$folder/roots"
    tls_options=(--cacert "$folder/roots")
    ;;
esac

# Prints status code and redirect. Uses ADDRESS, since a new DNS record may not resolve here yet.
request() {
  local port=$1
  shift
  local options=(--silent --output /dev/null --max-time 10 --retry 5 --retry-connrefused --resolve "$DOMAIN:$port:$ADDRESS" ${tls_options[@]+"${tls_options[@]}"})
  curl "${options[@]}" --write-out '%{http_code} %{redirect_url}' "$@" || echo " (curl exit $?)"
}

check_port() {
  local port=$1 purpose=$2 expected=$3 url=$4 answer
  shift 4
  answer=$(request "$port" "$@" "$url")
  # shellcheck disable=SC2053 # a pattern
  if [[ $answer != $expected ]]; then
    echo "Port $port ($purpose): $url returned '$answer', expected '$expected'." >&2
    [[ $port/$answer != "4444/403 " ]] ||
      echo "The public address of this machine is not in ant-media-cluster:adminCidrs, the networks that HAProxy serves the panel. Add it ('curl https://checkip.amazonaws.com' prints it), or run the update from an address that is in the list." >&2
    failed=1
  fi
}

# Checks that every application serves on a port, with the request of HAProxy's health check (haproxy.cfg).
check_applications() {
  local port=$1 purpose=$2 application
  for application in $APPLICATIONS; do
    check_port "$port" "$purpose" "@([23]*|404 *)" "https://$DOMAIN:$port/$application/streams/~.m3u8" --request OPTIONS
  done
}

# An RTMP server answers the first 1537 bytes of a client with version 3. The curl of Amazon Linux has no telnet.
check_rtmp() {
  local port=$1 client
  : >"$folder/answer"
  {
    exec 3<>"/dev/tcp/$ADDRESS/$port"
    { printf '\003' && head -c 1536 /dev/zero; } >&3
    head -c 1 <&3 | od -An -tu1 | tr -d ' ' >"$folder/answer"
  } 2>/dev/null &
  client=$!
  for _ in {1..100}; do
    kill -0 "$client" 2>/dev/null || break
    sleep 0.1
  done
  kill "$client" 2>/dev/null || true
  if [[ $(cat "$folder/answer") != 3 ]]; then
    echo "Port $port (RTMP): no answer from an RTMP server." >&2
    failed=1
  fi
}

# HAProxy ends TLS, and closes the connection on anything but RTMP: curl exits with 52 (empty reply) or 56 (reset).
check_rtmps() {
  check_port "$1" RTMPS "*\(curl exit 5[26]\)" "https://$DOMAIN:$1/"
}

check_port 80 "redirect" "301 https://$DOMAIN/" "http://$DOMAIN/"
check_applications 443 "publish"
check_port 443 "panel is not served" "404 " "https://$DOMAIN/rest/v2/liveness"
check_port 5080 "redirect" "301 https://$DOMAIN:5443/" "http://$DOMAIN:5080/"
check_applications 5443 "play"
check_port 5443 "panel is not served" "404 " "https://$DOMAIN:5443/rest/v2/liveness"
read -r rtmp_port rtmps_port <<<"$RTMP_PORTS"
[[ -z $rtmp_port ]] || check_rtmp "$rtmp_port"
[[ -z $rtmps_port ]] || check_rtmps "$rtmps_port"
check_port 4444 "panel" "200 " "https://$DOMAIN:4444/rest/v2/liveness"
check_port 6080 "statistics require a password" "401 " "https://$DOMAIN:6080/haproxy_stats"
check_port 6080 "plain statistics redirect" "30[128] https://$DOMAIN:6080/haproxy_stats" "http://$DOMAIN:6080/haproxy_stats"
((failed == 0)) || exit 1
echo "All ports of $DOMAIN passed their checks"
