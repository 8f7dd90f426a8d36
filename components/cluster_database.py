"""The cluster registry: a database in which media nodes find each other."""

from dataclasses import dataclass
from urllib.parse import quote

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder
from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript, ScriptHost


@dataclass(frozen=True)
class ClusterDatabaseArgs:
    """Arguments of a `ClusterDatabase`."""

    machine: MachineArgs
    password: SecretStr
    jump_host: command.remote.ProxyConnectionArgs
    """The load balancer, through which SSH reaches the machine."""


class ClusterDatabase(pulumi.ComponentResource):
    """A machine with Debian's Valkey: password, append-only file, reachable by media nodes alone.

    Creates a `Machine` and runs the script that installs Valkey.
    """

    machine: Machine
    url: SecretStr
    """Connection URL for media nodes. It contains the password."""
    ready: RemoteScript
    """Complete when the database answers."""

    def __init__(
        self, name: str, args: ClusterDatabaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:database:ClusterDatabase", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.machine = Machine(name, args.machine, child)
        address = self.machine.private_ip
        connection = self.machine.connection(address, args.jump_host)
        self.ready = RemoteScript(
            f"{name}-valkey",
            "install-valkey.sh",
            ScriptHost(name, self.machine, ScriptFolder.DATABASE, connection, child),
            args=[address],
            secrets=[args.password],
            timeout=600,
            opts=child,
        )
        password = quote(args.password.get_secret_value(), safe="")
        self.url = SecretStr(f"redis://:{password}@{address}:6379")
        self.register_outputs({"private_ip": address})
