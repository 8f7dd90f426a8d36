#!/usr/bin/env bash
# Sees to it that certbot has a certificate for these names, which its timer then renews: asks the ACME server through
# the running HAProxy where there is none yet, or another one is wanted, and for nothing else.
# usage: issue-certificate.sh --email E --directory URL --key-type ecdsa|rsa --challenge http-01|dns-01 --address IP NAME...
#        < PEM of certificates to trust for the ACME server, may be empty
source "$(dirname "$0")/prelude.sh"
while [[ $1 == --* ]]; do
  case $1 in
    --email) email=$2 ;;
    --directory) directory=$2 ;;
    --key-type) key_type=$2 ;;
    --challenge) challenge=$2 ;;
    --address) address=$2 ;;
  esac
  shift 2
done
names=("$@")
hook=$(realpath "$(dirname "$0")/deploy-certificate.sh")
log=/var/log/issue-certificate.log

trust() {
  local roots=$1 file=/usr/local/share/ca-certificates/acme-server.crt
  if [[ -n $roots ]]; then echo "$roots" >"$file"; else rm -f "$file"; fi
  update-ca-certificates --fresh >/dev/null 2>&1 ||
    fail "The ACME server's root cannot be added to what this machine trusts; look at update-ca-certificates there." </dev/null
}

# An update that fails leaves the trust that renewals need: who takes the setting back sees no change, and none is made.
trust_acme_server() {
  trusted=$(cat /usr/local/share/ca-certificates/acme-server.crt 2>/dev/null) || true
  trap '(($? == 0)) || trust "$trusted"' EXIT
  trust "$(cat)"
}

# The record that each name needs which leads elsewhere. EC2's own names for this machine lead to its private address here.
astray() {
  local name found ours
  ours=" $address $(hostname -I) "
  for name in "${names[@]}"; do
    found=$(getent ahosts "$name" | awk '{ print $1 }' | sort -u | paste -sd ' ') || true
    [[ -n $found && $ours == *" $found "* ]] || echo "  $name. A $address   (now: ${found:-nothing})"
  done
}

# A record that the same update made may take some seconds to be seen here.
check_records() {
  local wrong deadline=$((SECONDS + 20))
  until wrong=$(astray) && [[ -z $wrong ]]; do
    if ((SECONDS > deadline)); then
      fail "No certificate was asked for, because not every name leads to the load balancer yet. Everything else is done;" \
        "HAProxy serves with the certificate it has. Make these DNS records, then run the update again:" <<<"$wrong"
    fi
    sleep 2
  done
}

how_to_prove() {
  if [[ $challenge == dns-01 ]]; then
    dpkg -s python3-certbot-dns-route53 >/dev/null 2>&1 || install_packages python3-certbot-dns-route53 >&2
    echo dns-route53
  else
    check_records
    echo standalone
  fi
}

# A certificate of another ACME server, or one that would be renewed in another way than is wanted, does not count.
renewal_option() {
  local kept=/etc/letsencrypt/renewal/cluster.conf
  if [[ -e $kept ]] && ! { grep -qxF "server = $directory" "$kept" && grep -qxF "authenticator = $authenticator" "$kept"; }; then
    echo --force-renewal
  else
    echo --keep-until-expiring
  fi
}

ask_certbot() {
  local domains
  mapfile -t domains < <(printf -- '--domain\n%s\n' "${names[@]}")
  certbot_in_turn certonly --non-interactive --agree-tos --email "$email" --server "$directory" \
    --authenticator "$authenticator" --http-01-address 127.0.0.1 --http-01-port 8888 \
    --cert-name cluster "${domains[@]}" --renew-with-new-domains --key-type "$key_type" --elliptic-curve secp256r1 \
    --deploy-hook "$hook" "$(renewal_option)" >"$log"
}

reason() {
  case $(<"$log") in
    *"failed to authenticate some domains"*)
      echo "The ACME server could not verify every name: is port 80 open to it, and does each name lead here?"
      ;;
    *CERTIFICATE_VERIFY_FAILED*) echo "The load balancer does not trust the ACME server: give its CA's certificate as acme.root." ;;
    *"ValueError: Requesting "* | *ConnectionError* | *ConnectTimeout* | *ReadTimeout*) echo "The load balancer cannot reach the ACME server." ;;
    *rateLimited* | *"too many"*) echo "The ACME server's rate limit is reached; wait as long as it says before the next update." ;;
    *"No space left on device"*) echo "The load balancer's disk is full." ;;
    *AccessDenied*) echo "The load balancer's role may not change the challenge's record." ;;
    *) echo "The ACME server or certbot refused." ;;
  esac
}

"$(dirname "$0")/check-room.sh"
# Nothing is asked for that is kept already and could not be given back a moment ago.
"$(dirname "$0")/certificate-store.sh" restore
trust_acme_server
authenticator=$(how_to_prove)
echo "Asking $directory for a certificate for ${names[*]}"
# A policy of IAM that the same update changed takes some seconds to hold.
if ! ask_certbot && ! { grep -q AccessDenied "$log" && sleep 15 && ask_certbot; }; then
  grep -vE '^(Saving debug log|Requesting a cert|Renewing an|An unexpected error|All renewals failed|[0-9]+ renew fail|  /etc/letsencrypt/live|Ask for help|- - -|$)' "$log" | tail -n 15 |
    fail "certbot got no certificate for ${names[*]}. $(reason) Everything else is done; HAProxy serves with the certificate" \
      "it has. The next update tries again. certbot says:"
fi
{
  [[ ! -e /usr/local/share/ca-certificates/acme-server.crt ]] || echo "file /usr/local/share/ca-certificates/acme-server.crt"
  [[ $authenticator != dns-route53 ]] || echo "package python3-certbot-dns-route53"
} | keep
# What failed before is mended.
systemctl reset-failed certbot.service 2>/dev/null || true
echo "certbot has a certificate valid until $(openssl x509 -noout -enddate -in /etc/letsencrypt/live/cluster/cert.pem | cut -d = -f 2)"
