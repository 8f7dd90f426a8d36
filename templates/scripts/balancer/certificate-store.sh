#!/usr/bin/env bash
# Keeps certbot's account and certificate in AWS Secrets Manager, where they outlive this machine.
# usage: certificate-store.sh restore [SECRET_ARN] (where this machine has none that is whole; the secret is remembered)
#        certificate-store.sh save (where they changed)
source "$(dirname "$0")/prelude.sh"
folder=/etc/letsencrypt
arn_file=$folder/store
saved=$folder/store.saved
umask 077

metadata() {
  local token
  token=$(curl -sf --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  curl -sf --max-time 5 -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}

# A role that was just given to the machine takes a while to arrive here.
role_name() {
  until metadata iam/security-credentials/; do
    if ((SECONDS > 60)); then
      fail "This machine has no role at AWS, so its certificate cannot be kept; see its instance profile." </dev/null
    fi
    sleep 3
  done
}

# Secrets Manager's answer to the JSON on standard input, its errors included. No secret is on a command line.
ask_aws() {
  local operation=$1 region credentials role
  region=$(cut -d : -f 4 <<<"$arn")
  role=$(role_name) || exit
  credentials=$(metadata "iam/security-credentials/$role")
  curl -sS --max-time 20 --retry 3 --aws-sigv4 "aws:amz:$region:secretsmanager" \
    --config <(jq -r '"user = \"\(.AccessKeyId):\(.SecretAccessKey)\"", "header = \"X-Amz-Security-Token: \(.Token)\""' <<<"$credentials") \
    -H "X-Amz-Target: secretsmanager.$operation" -H 'Content-Type: application/x-amz-json-1.1' \
    --data @- "https://secretsmanager.$region.amazonaws.com/"
}

refused() {
  fail "Secrets Manager does not $1 the certificate ($arn). 'pulumi up --refresh' gives the load balancer's role back what it" \
    "may do there; without that secret, it makes a new one. Secrets Manager says:"
}

# All that certbot needs, and of the archive only what is current: a secret holds 64 KiB.
pack() {
  local current
  mapfile -t current < <(cd "$folder" && realpath --relative-to . live/cluster/*.pem)
  tar -C "$folder" --sort=name --mtime=@0 -cz accounts renewal/cluster.conf live/cluster "${current[@]}" | base64 -w 0
}

unpack() {
  local new
  new=$(mktemp -d /etc/letsencrypt.XXXXXX)
  # shellcheck disable=SC2064 # the folder's name as it is now
  trap "rm -rf '$new'" EXIT
  base64 -d 2>/dev/null | tar -C "$new" -xz 2>/dev/null || fail "It is no certificate of certbot's." </dev/null
  # `live` comes last: it is what says that all is there.
  for part in accounts archive renewal live; do
    rm -rf "${folder:?}/$part"
    mv "$new/$part" "$folder/$part"
  done
}

restore() {
  local answer
  # certbot may be writing just now.
  ! { whole_lineage || { [[ -e $folder/live/cluster ]] && sleep 3 && whole_lineage; }; } || return 0
  answer=$(jq -n --arg arn "$arn" '{SecretId: $arn}' | ask_aws GetSecretValue 2>&1) || true
  case $answer in
    *ResourceNotFoundException*)
      echo "No certificate is kept yet"
      rm -rf "$folder"/{live,archive}/cluster* "$folder"/renewal/cluster*
      ;;
    *SecretString*)
      answer=$(jq -r .SecretString <<<"$answer" | unpack 2>&1) || refused "give back" <<<"$answer"
      whole_lineage || refused "give back" <<<"What it keeps is damaged."
      echo "Restored certificate and ACME account"
      ;;
    *) refused "give back" <<<"$answer" ;;
  esac
}

save() {
  local content answer
  whole_lineage || return 0
  content=$(pack)
  [[ $(sha256sum <<<"$arn $content") != "$(cat "$saved" 2>/dev/null)" ]] || return 0
  answer=$(jq -n --arg arn "$arn" --rawfile content <(printf %s "$content") --arg token "$(</proc/sys/kernel/random/uuid)" \
    '{SecretId: $arn, SecretString: $content, ClientRequestToken: $token}' | ask_aws PutSecretValue 2>&1) || true
  [[ $answer == *VersionId* ]] || refused keep <<<"$answer"
  sha256sum <<<"$arn $content" >"$saved"
}

mkdir -p "$folder"
[[ -z ${2:-} ]] || install -m 0600 /dev/stdin "$arn_file" <<<"$2"
# With a certificate of the user's own nothing is kept.
[[ -e $arn_file ]] || exit 0
arn=$(<"$arn_file")
"$1"
