#!/usr/bin/env bash
# Checks every public port of the cluster from the operator's machine.
# environment:
#   DOMAIN
#   APPLICATIONS   separated by spaces
#   ADDRESS        of the load balancer
#   RTMP_PORTS     the ports of RTMP and RTMPS, separated by a space; empty: these are not checked
#   TRUST          the trusted CA certificates: system, any (every certificate is accepted) or a PEM
set -euo pipefail
failed=0
tls_options=()
verify_options=(-verify_return_error -verify_hostname "$DOMAIN")
case $TRUST in
  system) ;;
  # For Let's Encrypt's staging directory, which no machine trusts.
  any)
    tls_options=(--insecure)
    verify_options=()
    ;;
  *)
    roots=$(mktemp)
    trap 'rm -f "$roots"' EXIT
    echo "$TRUST" >"$roots"
    tls_options=(--cacert "$roots")
    verify_options+=(-CAfile "$roots")
    ;;
esac

# Prints status code and redirect. Uses ADDRESS, since a new DNS record may not resolve here yet.
request() {
  local port=$1
  shift
  local options=(--silent --output /dev/null --max-time 10 --retry 5 --retry-connrefused --resolve "$DOMAIN:$port:$ADDRESS" "${tls_options[@]}")
  curl "${options[@]}" --write-out '%{http_code} %{redirect_url}' "$@" || echo " (curl exit $?)"
}

check_port() {
  local port=$1 purpose=$2 expected=$3 url=$4 answer
  shift 4
  answer=$(request "$port" "$@" "$url")
  # shellcheck disable=SC2053 # a pattern
  if [[ $answer != $expected ]]; then
    echo "Port $port ($purpose): $url returned '$answer', expected '$expected'." >&2
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

connect() { curl --silent --max-time 4 "telnet://$ADDRESS:$1"; }

connect_tls() { openssl s_client -quiet -connect "$ADDRESS:$1" -servername "$DOMAIN" "${verify_options[@]}" 2>/dev/null; }

# An RTMP server answers the first 1537 bytes of a client with version 3.
check_rtmp() {
  local port=$1 protocol=$2 connect=$3 answer
  answer=$(
    { printf '\003'; head -c 1536 /dev/zero; sleep 1; } | "$connect" "$port" | head -c 1 | od -An -tu1 | tr -d ' '
  ) || true
  if [[ $answer != 3 ]]; then
    echo "Port $port ($protocol): no answer from an RTMP server." >&2
    failed=1
  fi
}

check_port 80 "redirect" "301 https://$DOMAIN/" "http://$DOMAIN/"
check_applications 443 "publish"
check_port 443 "panel is not served" "404 " "https://$DOMAIN/rest/v2/liveness"
check_port 5080 "redirect" "301 https://$DOMAIN:5443/" "http://$DOMAIN:5080/"
check_applications 5443 "play"
check_port 5443 "panel is not served" "404 " "https://$DOMAIN:5443/rest/v2/liveness"
read -r rtmp_port rtmps_port <<<"$RTMP_PORTS"
[[ -z $rtmp_port ]] || check_rtmp "$rtmp_port" RTMP connect
[[ -z $rtmps_port ]] || check_rtmp "$rtmps_port" RTMPS connect_tls
check_port 4444 "panel" "200 " "https://$DOMAIN:4444/rest/v2/liveness"
check_port 6080 "statistics require a password" "401 " "https://$DOMAIN:6080/haproxy_stats"
check_port 6080 "plain statistics redirect" "30[128] https://$DOMAIN:6080/haproxy_stats" "http://$DOMAIN:6080/haproxy_stats"
((failed == 0)) || exit 1
echo "All ports of $DOMAIN passed their checks"
