#!/usr/bin/env bash
# Stores certbot's account and certificate in AWS Secrets Manager, so that a replaced load balancer gets them back.
# usage: certificate-store.sh restore [SECRET_ARN]   does nothing if the files on this machine are complete; saves SECRET_ARN for later runs
#        certificate-store.sh save                   does nothing if the files have not changed
source "$(dirname "$0")/prelude.sh"
folder=/etc/letsencrypt
arn_file=$folder/store
saved=$folder/store.saved
umask 077

read_metadata() {
  local token
  token=$(curl -sf --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  curl -sf --max-time 5 -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}

# A role that was attached a moment ago takes some seconds to appear in the instance metadata.
read_role_name() {
  until read_metadata iam/security-credentials/; do
    if ((SECONDS > 60)); then
      fail "This machine has no IAM role, so its certificate cannot be stored. Check its instance profile." </dev/null
    fi
    sleep 3
  done
}

# Sends the JSON on standard input to Secrets Manager and prints the answer, errors included. No secret is on a command line.
call_secrets_manager() {
  local operation=$1 region credentials role
  region=$(cut -d : -f 4 <<<"$arn")
  role=$(read_role_name) || exit
  credentials=$(read_metadata "iam/security-credentials/$role")
  curl -sS --max-time 20 --retry 3 --aws-sigv4 "aws:amz:$region:secretsmanager" \
    --config <(jq -r '"user = \"\(.AccessKeyId):\(.SecretAccessKey)\"", "header = \"X-Amz-Security-Token: \(.Token)\""' <<<"$credentials") \
    -H "X-Amz-Target: secretsmanager.$operation" -H 'Content-Type: application/x-amz-json-1.1' \
    --data @- "https://secretsmanager.$region.amazonaws.com/"
}

fail_with_aws_error() {
  fail "Secrets Manager does not $1 the certificate ($arn). 'make up' restores the permissions of the load" \
    "balancer's role, and creates the secret again if it is missing. Secrets Manager reports:"
}

# Packs what certbot needs. Leaves out old files of the archive, since a secret holds 64 KiB.
pack_files() {
  local current
  mapfile -t current < <(cd "$folder" && realpath --relative-to . live/cluster/*.pem)
  tar -C "$folder" --sort=name --mtime=@0 -cz accounts renewal/cluster.conf live/cluster "${current[@]}" | base64 -w 0
}

unpack_files() {
  local new
  new=$(mktemp -d /etc/letsencrypt.XXXXXX)
  # shellcheck disable=SC2064 # expands the folder's name now
  trap "rm -rf '$new'" EXIT
  base64 -d 2>/dev/null | tar -C "$new" -xz 2>/dev/null || fail "The secret does not contain the files of certbot." </dev/null
  # `live` comes last: lineage_is_complete fails until it exists.
  for part in accounts archive renewal live; do
    rm -rf "${folder:?}/$part"
    mv "$new/$part" "$folder/$part"
  done
}

restore_files() {
  local answer
  # certbot may be writing its files at this moment.
  ! { lineage_is_complete || { [[ -e $folder/live/cluster ]] && sleep 3 && lineage_is_complete; }; } || return 0
  answer=$(jq -n --arg arn "$arn" '{SecretId: $arn}' | call_secrets_manager GetSecretValue 2>&1) || true
  case $answer in
    *ResourceNotFoundException*)
      echo "No certificate is stored yet"
      rm -rf "$folder"/{live,archive}/cluster* "$folder"/renewal/cluster*
      ;;
    *SecretString*)
      answer=$(jq -r .SecretString <<<"$answer" | unpack_files 2>&1) || fail_with_aws_error return <<<"$answer"
      lineage_is_complete || fail_with_aws_error return <<<"The stored certificate is damaged."
      echo "Restored the certificate and the ACME account"
      ;;
    *) fail_with_aws_error return <<<"$answer" ;;
  esac
}

save_files() {
  local content answer
  lineage_is_complete || return 0
  content=$(pack_files)
  [[ $(sha256sum <<<"$arn $content") != "$(cat "$saved" 2>/dev/null)" ]] || return 0
  answer=$(jq -n --arg arn "$arn" --rawfile content <(printf %s "$content") --arg token "$(</proc/sys/kernel/random/uuid)" \
    '{SecretId: $arn, SecretString: $content, ClientRequestToken: $token}' | call_secrets_manager PutSecretValue 2>&1) || true
  [[ $answer == *VersionId* ]] || fail_with_aws_error store <<<"$answer"
  sha256sum <<<"$arn $content" >"$saved"
}

mkdir -p "$folder"
[[ -z ${2:-} ]] || install -m 0600 /dev/stdin "$arn_file" <<<"$2"
# There is no secret when the user brings the certificate.
[[ -e $arn_file ]] || exit 0
arn=$(<"$arn_file")
case $1 in
  restore) restore_files ;;
  save) save_files ;;
esac
