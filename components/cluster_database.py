"""The cluster registry: a database in which media nodes find each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder
from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript, ScriptHost, install_node_exporter


@dataclass(frozen=True)
class ClusterDatabaseArgs:
    """Arguments of a `ClusterDatabase`."""

    machine: MachineArgs
    password: SecretStr
    jump_host: command.remote.ProxyConnectionArgs
    """The load balancer, through which SSH reaches the machine."""


class ClusterDatabase(pulumi.ComponentResource):
    """A machine with Debian's Valkey: password, append-only file, reachable by media nodes alone.

    Creates a `Machine` and runs the scripts that install Valkey and set its password.
    """

    machine: Machine
    url: SecretStr
    """Connection URL for media nodes. It contains the password."""
    registry: pulumi.Output[str]
    """Identifies the registry's data. Nodes register their streams again, by a restart, when it changes."""
    ready: RemoteScript
    """Complete when the database answers and takes the password."""

    def __init__(
        self, name: str, args: ClusterDatabaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:database:ClusterDatabase", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._name = name
        self._password = args.password
        self.machine = Machine(name, args.machine, child)
        address = self.machine.private_ip
        connection = self.machine.connection(address, args.jump_host)
        self._host = ScriptHost(name, self.machine, ScriptFolder.DATABASE, connection, child)
        installed = RemoteScript(
            f"{name}-valkey", "install-valkey.sh", self._host, args=[address], timeout=600, opts=child
        )
        if args.machine.monitored:
            after = pulumi.ResourceOptions(parent=self, depends_on=[installed])
            install_node_exporter(self._host, "valkey-server.service", after)
        self.registry = installed.stdout.apply(_read_registry)
        self.ready = self._set_password("password", "add", installed)
        self.url = SecretStr(f"redis://:{quote(args.password.get_secret_value(), safe='')}@{address}:6379")
        self.register_outputs({"private_ip": address})

    def retire_old_passwords(self, nodes: Sequence[RemoteScript]) -> None:
        """Makes the password the only valid one when all nodes use it: until then, the previous one stays valid."""
        self._set_password("only-password", "only", self.ready, *nodes)

    def _set_password(
        self, step: str, mode: str, previous: RemoteScript, *nodes: RemoteScript
    ) -> RemoteScript:
        return RemoteScript(
            f"{self._name}-{step}",
            "set-registry-password.sh",
            self._host,
            args=[mode],
            secrets=[self._password],
            # Also if the password went back to one that a previous update had left on its way.
            triggers=[previous.id],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[previous, *nodes]),
        )


def _read_registry(stdout: str) -> str:
    """Returns the id in the output of install-valkey.sh."""
    return stdout.rpartition("Registry ")[2].strip()
