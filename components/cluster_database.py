"""The database through which media nodes find each other."""

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
    """The machine, its password, and the load balancer as the way to it."""

    machine: MachineArgs
    password: SecretStr
    jump_host: command.remote.ProxyConnectionArgs


class ClusterDatabase(pulumi.ComponentResource):
    """A virtual machine with Debian's Valkey: password, append-only file, reachable by media nodes alone."""

    machine: Machine
    url: SecretStr
    """What media nodes connect to; holds the password."""
    ready: RemoteScript
    """Done when the database answers."""

    def __init__(
        self, name: str, args: ClusterDatabaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:database:ClusterDatabase", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.machine = Machine(name, args.machine, child)
        self.ready = RemoteScript(
            f"{name}-valkey",
            "install-valkey.sh",
            ScriptHost(
                name,
                self.machine,
                ScriptFolder.DATABASE,
                self.machine.connection(self.machine.private_ip, args.jump_host),
                child,
            ),
            args=[self.machine.private_ip],
            secrets=[args.password],
            timeout=600,
            opts=child,
        )
        self.url = SecretStr(
            f"redis://:{quote(args.password.get_secret_value(), safe='')}@{self.machine.private_ip}:6379"
        )
        self.register_outputs({"private_ip": self.machine.private_ip})
