"""The one way to run something on a machine."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from components.machine import Machine

SCRIPTS = Path(__file__).parent.parent / "templates" / "scripts"


def command_line(script: str, args: Sequence[str], timeout: int) -> str:
    """The shell command that runs ``templates/scripts/<script>`` as root with ``args``, ``timeout`` seconds at most.

    The limit holds on the machine itself: the provider would wait for ever.
    """
    text = (SCRIPTS / "prelude.sh").read_text() + (SCRIPTS / script).read_text()
    return shlex.join(["sudo", "timeout", str(timeout), "bash", "-c", text, script, *args])


class RemoteScript(command.remote.Command):
    """A script of ``templates/scripts`` run as root on a machine: when it is new, and whenever an input changes.

    The script is idempotent, so there is neither an ``update`` nor a ``delete`` command. It runs again on a machine that was
    replaced (``replace_with``) and is forgotten with a machine that is gone (``deleted_with``), which may be dead.
    Arguments are shown in previews and process lists. Secrets go to ``stdin``, as a secret output; nothing is logged then.
    """

    def __init__(
        self,
        name: str,
        script: str,
        machine: Machine,
        connection: command.remote.ConnectionArgs,
        args: Sequence[str] = (),
        stdin: pulumi.Input[str] | None = None,
        secret_stdin: SecretStr | None = None,
        timeout: int = 300,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  (the base class leaves __props__ untyped)
            name,
            connection=connection,
            create=command_line(script, args, timeout),
            stdin=stdin if secret_stdin is None else pulumi.Output.secret(secret_stdin.get_secret_value()),
            logging=None if secret_stdin is None else command.remote.Logging.NONE,
            # The previous output would travel in the environment, which sshd does not accept.
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions(replace_with=[machine.instance], deleted_with=machine.instance), opts
            ),
        )
