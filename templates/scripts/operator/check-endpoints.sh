#!/usr/bin/env bash
# Asks every public port of the cluster, from where the operator sits, whether it answers as it should.
# environment: DOMAIN, ADDRESS (the load balancer's), APPLICATION, RTMP (yes or no: whether to look), TRUST (whose certificates
#   are good: system, nobody where any certificate will do, or the PEM of those that a good one leads to)
set -euo pipefail
failed=0
tls_options=()
case $TRUST in
  system) ;;
  # Let's Encrypt's staging directory is trusted by no machine.
  nobody) tls_options=(--insecure) ;;
  *)
    roots=$(mktemp)
    trap 'rm -f "$roots"' EXIT
    echo "$TRUST" >"$roots"
    tls_options=(--cacert "$roots")
    ;;
esac

# A fresh DNS record may not have reached this machine yet, so the address is given.
request() {
  local port=$1
  shift
  local options=(--silent --output /dev/null --max-time 10 --retry 5 --retry-connrefused --resolve "$DOMAIN:$port:$ADDRESS" "${tls_options[@]}")
  curl "${options[@]}" --write-out '%{http_code} %{redirect_url}' "$@" || echo " (curl exit $?)"
}

expect() {
  local port=$1 what=$2 wanted=$3 url=$4 answer
  answer=$(request "$port" "$url")
  # shellcheck disable=SC2053 # a pattern
  if [[ $answer != $wanted ]]; then
    echo "Port $port ($what): $url answered '$answer', expected '$wanted'." >&2
    failed=1
  fi
}

# A server that speaks RTMP answers the client's first 1537 bytes with version 3.
expect_rtmp() {
  local answer
  answer=$(
    { printf '\003'; head -c 1536 /dev/zero; sleep 1; } |
      curl --silent --max-time 4 "telnet://$ADDRESS:1935" | head -c 1 | od -An -tu1 | tr -d ' '
  ) || true
  if [[ $answer != 3 ]]; then
    echo "Port 1935 (RTMP): no RTMP server answers." >&2
    failed=1
  fi
}

expect 80 "redirect" "301 https://$DOMAIN/" "http://$DOMAIN/"
expect 443 "publish" "[234]*" "https://$DOMAIN/$APPLICATION/"
expect 443 "no panel here" "404 " "https://$DOMAIN/rest/v2/liveness"
expect 5080 "redirect" "301 https://$DOMAIN:5443/" "http://$DOMAIN:5080/"
expect 5443 "play" "[234]*" "https://$DOMAIN:5443/$APPLICATION/"
expect 5443 "no panel here" "404 " "https://$DOMAIN:5443/rest/v2/liveness"
[[ $RTMP == no ]] || expect_rtmp
expect 4444 "panel" "200 " "https://$DOMAIN:4444/rest/v2/liveness"
expect 6080 "statistics ask for a password" "401 " "https://$DOMAIN:6080/haproxy_stats"
expect 6080 "plain statistics redirect" "30[128] https://$DOMAIN:6080/haproxy_stats" "http://$DOMAIN:6080/haproxy_stats"
((failed == 0)) || exit 1
echo "The ports of $DOMAIN answer as they should"
