# Sourced: sets the stack, its state and the environment of Pulumi commands in the sandbox. root is the checkout.
# shellcheck shell=bash
state=${SANDBOX_STATE:-/var/lib/ant-media-sandbox}/pulumi
export PULUMI_STACK=${PULUMI_STACK:-sandbox}

export PATH=$root/.venv/engine:$PATH
# Plugins come from this PULUMI_HOME alone. A plugin on PATH would take precedence.
export PULUMI_HOME=$root/.venv/pulumi-home PULUMI_IGNORE_AMBIENT_PLUGINS=1
export PULUMI_BACKEND_URL=file://$state PULUMI_CONFIG_PASSPHRASE=sandbox PULUMI_SKIP_UPDATE_CHECK=1
# `python -m operations.…` works in any folder.
export PYTHONPATH=$root

# A copy of the stack's file in the checkout, as it was when its settings were last merged into the state folder.
merged_stack_file=$state/.merged.$PULUMI_STACK.yaml

stack_file_changed() {
  ! cmp --silent "$root/Pulumi.$PULUMI_STACK.yaml" "$merged_stack_file"
}

record_stack_file() {
  cp "$root/Pulumi.$PULUMI_STACK.yaml" "$merged_stack_file"
}

# The command provider fails on a stale agent socket, even if a key is given.
unset SSH_AUTH_SOCK
