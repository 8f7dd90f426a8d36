"""The one way to run something on a machine."""

import shlex
from collections.abc import Sequence
from hashlib import sha256

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder, bundle_scripts, read_script
from components.machine import Machine

INSTALLED = "/usr/local/lib/ant-media-cluster"


class ScriptHost:
    """A machine that has the scripts of its kind, ready to run them.

    Installs them when cloud-init is done, in ``INSTALLED``, so that a command is one readable line, in previews as in errors.
    """

    machine: Machine
    folder: ScriptFolder
    """Which scripts of ``templates/scripts`` it has, beside those of every machine."""
    connection: command.remote.ConnectionArgs
    scripts: command.remote.Command
    """Done when the machine has the scripts."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        folder: ScriptFolder,
        connection: command.remote.ConnectionArgs,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        self.machine = machine
        self.folder = folder
        self.connection = connection
        install = read_script(ScriptFolder.EVERY_MACHINE, "install-scripts.sh")
        self.scripts = command.remote.Command(
            f"{name}-scripts",
            connection=connection,
            create=shlex.join(["sudo", "timeout", "600", "bash", "-c", install, "", INSTALLED]),
            stdin=bundle_scripts(folder),
            triggers=machine.starts,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(gone_with(machine), opts),
        )


class RemoteScript(command.remote.Command):
    """A script of ``templates/scripts`` run as root on a machine: when it is new, and whenever an input or the script changes.

    The script is idempotent, so there is neither an ``update`` nor a ``delete`` command. It runs again whenever its
    machine starts anew (``triggers``; ``replace_with`` would miss one that was ended by hand and made again) and is forgotten
    with a machine that is gone (``deleted_with``), which may be dead.

    ``args`` are shown in previews and process lists. ``stdin`` is shown in previews. ``secrets`` go to the script's standard
    input, a line each (empty for ``None``); then nothing that the script prints is logged. ``timeout`` (seconds) holds on the
    machine itself: the provider would wait for ever.
    """

    def __init__(
        self,
        name: str,
        script: str,
        host: ScriptHost,
        args: Sequence[pulumi.Input[str]] = (),
        stdin: str | None = None,
        secrets: Sequence[SecretStr | None] = (),
        triggers: Sequence[pulumi.Input[str]] = (),
        timeout: int = 300,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        texts = read_script(ScriptFolder.EVERY_MACHINE, "prelude.sh") + read_script(host.folder, script)
        version = sha256(texts.encode()).hexdigest()[:12]
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  (the base class leaves __props__ untyped)
            name,
            connection=host.connection,
            create=pulumi.Output.all(*args).apply(
                lambda args: (
                    shlex.join(["sudo", "timeout", "--verbose", str(timeout), f"{INSTALLED}/{script}", *args])
                    + f"  # version {version}"
                )
            ),
            stdin=pulumi.Output.secret(lines(secrets)) if secrets else stdin,
            triggers=[*host.machine.starts, *triggers],
            logging=command.remote.Logging.NONE if secrets else None,
            # The previous output would travel in the environment, which sshd does not accept.
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions.merge(
                    gone_with(host.machine), pulumi.ResourceOptions(depends_on=[host.scripts])
                ),
                opts,
            ),
        )


def gone_with(machine: Machine) -> pulumi.ResourceOptions:
    """What is on a machine needs no deletion where the machine itself goes."""
    return pulumi.ResourceOptions(deleted_with=machine.instance)


def lines(secrets: Sequence[SecretStr | None]) -> str:
    return "".join(f"{secret.get_secret_value() if secret else ''}\n" for secret in secrets)
