"""What a machine is told at its first boot: who may log in, and as which host it answers."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.host_keys import HostKey

# The account that the remote steps log in to.
USER = "pulumi"

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
)


def render_user_data(host_key: HostKey, authorized_key: str) -> str:
    """A cloud-config for cloud-init; `authorized_key` is one line of authorized_keys."""
    template = _TEMPLATES.get_template("cloud-init.yaml.j2")
    return template.render(user=USER, host_key=host_key, authorized_key=authorized_key)
