"""What a machine is told at its first boot: who may log in, and as which host it answers."""

from cluster.host_keys import HostKey
from cluster.templates import TEMPLATES

# The account that the remote steps log in to.
USER = "pulumi"


def render_user_data(host_key: HostKey, authorized_key: str) -> str:
    """A cloud-config for cloud-init; `authorized_key` is one line of authorized_keys."""
    template = TEMPLATES.get_template("cloud-init.yaml.j2")
    return template.render(user=USER, host_key=host_key, authorized_key=authorized_key)
