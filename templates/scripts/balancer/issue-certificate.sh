#!/usr/bin/env bash
# Requests a certificate for the given names from the ACME server, through the running HAProxy; certbot's timer renews it.
# Requests nothing while certbot has a certificate for these names from this server that is not due for renewal.
# usage: issue-certificate.sh --email E --directory URL --key-type ecdsa|rsa --challenge http-01|dns-01 --address IP NAME...
#        < PEM of the CA certificates to trust for the ACME server, may be empty
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

# Trusts exactly these CA certificates for the ACME server. An update of the machine's trusted certificates takes seconds.
trust_roots() {
  local roots=$1 file=/usr/local/share/ca-certificates/acme-server.crt folder=/etc/ssl/certs
  # An update that was interrupted leaves a bundle that is older than the file.
  [[ $roots != "$(cat "$file" 2>/dev/null)" || $folder/ca-certificates.crt -ot $file ]] || return 0
  write_file "$file" <<<"$roots"
  # A missing link makes update-ca-certificates renew the links of the hashes too.
  rm -f "$folder/acme-server.pem"
  update-ca-certificates >/dev/null 2>&1 ||
    fail "The CA certificate of the ACME server (acme.root) cannot be added to the load balancer's trusted certificates." \
      "Run update-ca-certificates there to see why." </dev/null
  [[ -n $roots ]] || rm -f "$file" "$folder/acme-server.pem"
}

# Trusts the CA certificates on standard input for the ACME server. If this script fails, trusts the previous ones again,
# which renewals of the present certificate need.
trust_acme_server() {
  trusted=$(cat /usr/local/share/ca-certificates/acme-server.crt 2>/dev/null) || true
  trap '(($? == 0)) || trust_roots "$trusted"' EXIT
  trust_roots "$(cat)"
}

# Prints the records that a name must have, or must not have. EC2's own names for this machine resolve to its private address here.
# Without --no-addrconfig the resolver hides AAAA records from a machine without IPv6. An ACME server connects to those first.
list_wrong_records() {
  local name found ipv4 ipv6 ours
  ours=" $address $(hostname -I) "
  for name in "${names[@]}"; do
    found=$(getent --no-addrconfig ahosts "$name" | awk '{ print $1 }' | sort -u) || true
    ipv4=$(grep -v : <<<"$found" | paste -sd ' ') || true
    [[ -n $ipv4 && $ours == *" $ipv4 "* ]] || echo "  $name. A $address   (now: ${ipv4:-nothing})"
    while read -r ipv6; do
      [[ $ipv6 != *:* || $ours == *" $ipv6 "* ]] ||
        echo "  $name. AAAA $ipv6   (delete it: the load balancer has no such address, and ACME servers connect to IPv6 first)"
    done <<<"$found"
  done
}

# Waits up to 20 seconds, since a record that the same update created may not resolve here at once.
check_records() {
  local wrong deadline=$((SECONDS + 20))
  until wrong=$(list_wrong_records) && [[ -z $wrong ]]; do
    if ((SECONDS > deadline)); then
      fail "No certificate was requested, because not every name resolves to the load balancer yet. The rest of the update is" \
        "done, and HAProxy serves the certificate it has. Correct these DNS records, then run the update again:" <<<"$wrong"
    fi
    sleep 2
  done
}

# Prints the certbot authenticator for the challenge, ready to use.
prepare_authenticator() {
  if [[ $challenge == dns-01 ]]; then
    install_packages python3-certbot-dns-route53 >&2
    echo dns-route53
  else
    check_records
    echo standalone
  fi
}

# Forces a new certificate if the present one is from another ACME server, or is renewed with another authenticator.
choose_renewal_option() {
  local renewal=/etc/letsencrypt/renewal/cluster.conf
  if [[ -e $renewal ]] && ! { grep -qxF "server = $directory" "$renewal" && grep -qxF "authenticator = $authenticator" "$renewal"; }; then
    echo --force-renewal
  else
    echo --keep-until-expiring
  fi
}

request_certificate() {
  local domains
  mapfile -t domains < <(printf -- '--domain\n%s\n' "${names[@]}")
  run_certbot certonly --non-interactive --agree-tos --email "$email" --server "$directory" \
    --authenticator "$authenticator" --http-01-address 127.0.0.1 --http-01-port 8888 \
    --cert-name cluster "${domains[@]}" --renew-with-new-domains --key-type "$key_type" --elliptic-curve secp256r1 \
    --deploy-hook "$hook" "$(choose_renewal_option)" >"$log"
}

explain_failure() {
  case $(<"$log") in
    *"failed to authenticate some domains"*)
      echo "The ACME server could not verify every name. Check that port 80 is open to it and that each name resolves to the load balancer."
      ;;
    *CERTIFICATE_VERIFY_FAILED*) echo "The load balancer does not trust the ACME server. Set acme.root to the server's CA certificate." ;;
    *"ValueError: Requesting "* | *ConnectionError* | *ConnectTimeout* | *ReadTimeout*) echo "The load balancer cannot reach the ACME server." ;;
    *rateLimited* | *"too many"*) echo "The ACME server's rate limit is reached. Wait as long as it requires before the next update." ;;
    *"No space left on device"*) echo "The load balancer's disk is full." ;;
    *AccessDenied*) echo "The load balancer's role is not allowed to change the DNS record of the challenge." ;;
    *) echo "The ACME server or certbot refused the request." ;;
  esac
}

"$(dirname "$0")/check-disk-space.sh"
# Fails if a stored certificate exists and cannot be restored. A new one is requested only if none is stored.
"$(dirname "$0")/certificate-store.sh" restore
trust_acme_server
authenticator=$(prepare_authenticator)
echo "Requesting a certificate for ${names[*]} from $directory"
# An IAM policy that the same update changed takes some seconds to be effective.
if ! request_certificate && ! { grep -q AccessDenied "$log" && sleep 15 && request_certificate; }; then
  grep -vE '^(Saving debug log|Requesting a cert|Renewing an|An unexpected error|All renewals failed|[0-9]+ renew fail|  /etc/letsencrypt/live|Ask for help|- - -|$)' "$log" | tail -n 15 |
    fail "certbot got no certificate for ${names[*]}. $(explain_failure) The rest of the update is done, and HAProxy serves the" \
      "certificate it has. The next update tries again. certbot reports:"
fi
{
  [[ ! -e /usr/local/share/ca-certificates/acme-server.crt ]] || echo "file /usr/local/share/ca-certificates/acme-server.crt"
  [[ $authenticator != dns-route53 ]] || echo "package python3-certbot-dns-route53"
} | save_record
# A renewal that failed earlier must not be reported any more.
systemctl reset-failed certbot.service 2>/dev/null || true
echo "certbot has a certificate valid until $(openssl x509 -noout -enddate -in /etc/letsencrypt/live/cluster/cert.pem | cut -d = -f 2)"
