"""Renders the cloud-init user data of a machine: the login user and the SSH host key."""

from cluster.derived_keys import KeyPair
from cluster.templates import TEMPLATES

# The user that the remote scripts log in as.
REMOTE_USER = "pulumi"


def render_user_data(host_key: KeyPair, authorized_key: str, *, runs_server: bool) -> str:
    """Returns a cloud-config document. `authorized_key` is one line of authorized_keys. A media node runs Ant Media Server."""
    template = TEMPLATES.get_template("cloud-init.yaml.j2")
    return template.render(
        user=REMOTE_USER, host_key=host_key, authorized_key=authorized_key, runs_server=runs_server
    )
