#!/usr/bin/env bash
# Sets the password with which nodes log in to the registry. No connection is closed and Valkey does not restart.
# usage: set-registry-password.sh add|only < password
#        add: the passwords that nodes have now stay valid. only: they do not.
source "$(dirname "$0")/prelude.sh"
source "$(dirname "$0")/valkey.sh"
mode=$1
IFS= read -r password

mapfile -t hashes < <(
  printf '%s' "$password" | hash_password
  [[ $mode == only ]] || list_passwords
)
mapfile -t hashes < <(printf '%s\n' "${hashes[@]}" | awk '!seen[$0]++')
# The file first: Valkey must have the password also after a restart.
write_users "${hashes[@]}"
wait_for_valkey
# One command, so that no moment is without a valid password.
reply=$(ask_once "ACL SETUSER default on resetpass ${hashes[*]/#/#}")
[[ $reply == OK ]] || fail "Valkey does not set the password: $reply" </dev/null
reply=$(printf 'AUTH "%s"\nPING\n' "$password" | valkey-cli -h 127.0.0.1 2>&1 | tail -n 1)
[[ $reply == PONG ]] || fail "Valkey does not take the password: $reply" </dev/null
save_record <<END
secret $users
END
echo "The registry takes ${#hashes[@]} $( ((${#hashes[@]} == 1)) && echo password || echo passwords)"
