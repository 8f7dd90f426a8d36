"""What a machine is told at its first boot: who may log in, and as which host it answers."""

from components.host_keys import HostKey

# The account that the remote steps log in to.
ADMIN_USER = "pulumi"


def render_user_data(host_key: HostKey, authorized_key: str) -> str:
    raise NotImplementedError
