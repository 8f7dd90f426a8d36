# What the sandbox's operator works with: its state, its passphrase, the stack. Sourced; root is the checkout.
# shellcheck shell=bash
state=${SANDBOX_STATE:-/var/lib/ant-media-sandbox}/pulumi
export PULUMI_STACK=${PULUMI_STACK:-sandbox}

export PATH=$root/.venv/plugins:$root/.venv/engine:$PATH
export PULUMI_BACKEND_URL=file://$state PULUMI_CONFIG_PASSPHRASE=sandbox PULUMI_SKIP_UPDATE_CHECK=1
# For `python -m operations.…` from whichever folder.
export PYTHONPATH=$root
unset SSH_AUTH_SOCK
