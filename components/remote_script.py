"""Runs scripts of `templates/scripts` on machines, over SSH."""

import shlex
from collections.abc import Sequence

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from cluster.address_plan import MachinePlace
from cluster.machine_scripts import (
    INSTALLED_SCRIPTS,
    ScriptFolder,
    pack_scripts,
    read_hook,
    read_script,
    short_digest,
)
from components.machine import Machine

NODE_EXPORTER = "prometheus-node-exporter"
"""The package that install-node-exporter.sh needs."""
INSTALLATION_TIMEOUT = 900
"""Of a script that installs packages: it may wait 600 s for automatic updates (configure-system.sh)."""


class ScriptHost:
    """A machine that has the scripts of its kind.

    Creates one `command.remote.Command`. It waits for cloud-init, grows the file system to the volume, authorizes the SSH
    keys and installs the scripts in `INSTALLED_SCRIPTS`, so that each `RemoteScript` is one readable line in previews
    and errors.
    """

    machine: Machine
    folder: ScriptFolder
    """The folder of `templates/scripts` that it has, beside `every-machine`."""
    connection: pulumi.Output[command.remote.ConnectionArgs]
    scripts: command.remote.Command
    """Complete when the scripts are installed."""

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
        self.connection = pulumi.Output.from_input(connection)
        install = read_script(ScriptFolder.EVERY_MACHINE, "install-scripts.sh")
        args = [INSTALLED_SCRIPTS, str(machine.volume_size), *machine.authorized_keys]
        self.scripts = command.remote.Command(
            f"{name}-scripts",
            connection=self.connection,
            create=shlex.join(["sudo", "timeout", "600", "bash", "-c", install, "", *args]),
            stdin=pack_scripts(folder),
            # Outputs of the instance: the command waits for an update of the instance, which enlarges its volume.
            triggers=machine.starts,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(_command_options(machine), opts),
        )


class RemoteScript(command.remote.Command):
    """Runs a script as root on a machine when it is created.

    It runs again when an input, the script, prelude.sh or the machine changes. The script is idempotent, so the command
    has no `update` and no `delete`: see `run_again_after_failure`. `triggers` run it again when its machine starts again;
    `replace_with` would miss an instance that was terminated by hand. `deleted_with` removes it from the state together
    with its machine, which may be unreachable.

    Args:
        script: File name in the host's folder of `templates/scripts`.
        args: Arguments of the script. Previews and process lists show them.
        stdin: Standard input of the script. Previews show it, unless there are secrets.
        secrets: First lines of the script's standard input, one each and an empty line for `None`. Neither these nor the
            script's output are logged.
        triggers: Further values whose change runs the script again.
        timeout: Seconds after which the machine ends the script. The provider itself has no time limit.
    """

    def __init__(
        self,
        name: str,
        script: str,
        host: ScriptHost,
        args: Sequence[pulumi.Input[str]] = (),
        stdin: pulumi.Input[str] | None = None,
        secrets: Sequence[SecretStr | None] = (),
        triggers: Sequence[pulumi.Input[str]] = (),
        timeout: int = 300,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        version = _version(host.folder, script)
        own_opts = pulumi.ResourceOptions.merge(
            _command_options(host.machine), pulumi.ResourceOptions(depends_on=[host.scripts])
        )
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  (the base class leaves __props__ untyped)
            name,
            connection=host.connection,
            create=pulumi.Output.all(*args).apply(
                lambda args: (
                    shlex.join(
                        ["sudo", "timeout", "--verbose", str(timeout), f"{INSTALLED_SCRIPTS}/{script}", *args]
                    )
                    + f"  # version {version}"
                )
            ),
            stdin=pulumi.Output.secret(pulumi.Output.concat(_join_lines(secrets), stdin or ""))
            if secrets
            else stdin,
            triggers=[*host.machine.starts, *triggers],
            logging=command.remote.Logging.NONE if secrets else None,
            # The previous output would be sent as an environment variable, which sshd refuses.
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(own_opts, opts),
        )


def install_node_exporter(host: ScriptHost, unit: str, opts: pulumi.ResourceOptions) -> None:
    """Makes a machine serve its metrics to the load balancer. The state of a systemd unit is among them."""
    RemoteScript(
        f"{host.machine.name}-node-exporter",
        "install-node-exporter.sh",
        host,
        args=[unit],
        timeout=INSTALLATION_TIMEOUT,
        opts=opts,
    )


def run_hook(
    name: str,
    path: str,
    host: ScriptHost,
    place: MachinePlace,
    set_up: RemoteScript,
    opts: pulumi.ResourceOptions,
) -> RemoteScript:
    """Runs a script of the user's repository after the set-up of a machine, and again after each further one."""
    return RemoteScript(
        name,
        "run-hook.sh",
        host,
        args=[place.name, place.role],
        stdin=read_hook(path),
        triggers=[set_up.id],
        timeout=900,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[set_up])),
    )


def fingerprint_script(
    folder: ScriptFolder, script: str, args: Sequence[str], secrets: Sequence[SecretStr | None]
) -> str:
    """Returns a digest of everything that runs a script again. It is as secret as `secrets`."""
    return short_digest("\n".join([_version(folder, script), *args, _join_lines(secrets)]))


def _version(folder: ScriptFolder, script: str) -> str:
    return short_digest(read_script(ScriptFolder.EVERY_MACHINE, "prelude.sh") + read_script(folder, script))


def run_again_after_failure() -> pulumi.ResourceOptions:
    """Returns options that make a failed or interrupted command run again in the next update, whatever its inputs are then.

    A command that fails in an update keeps its old inputs in the state. If the settings then go back, Pulumi sees no change.
    With these options the engine deletes the command from the state before it runs it again, so a failed one is missing there.
    """
    return pulumi.ResourceOptions(replace_on_changes=["*"], delete_before_replace=True)


def _command_options(machine: Machine) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions.merge(
        run_again_after_failure(), pulumi.ResourceOptions(deleted_with=machine.instance)
    )


def _join_lines(secrets: Sequence[SecretStr | None]) -> str:
    return "".join(f"{secret.get_secret_value() if secret else ''}\n" for secret in secrets)
