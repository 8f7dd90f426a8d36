"""The cluster registry: a database in which media nodes find each other, and its standby on the load balancer."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pulumi
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder
from components.load_balancer import HAProxyLoadBalancer
from components.machine import Machine, MachineArgs
from components.remote_script import (
    INSTALLATION_TIMEOUT,
    NODE_EXPORTER,
    RemoteScript,
    ScriptHost,
    install_node_exporter,
)


@dataclass(frozen=True)
class ClusterDatabaseArgs:
    """Arguments of a `ClusterDatabase`."""

    machine: MachineArgs
    password: SecretStr
    balancer: HAProxyLoadBalancer
    """Has the standby. SSH reaches the machine through it."""


class ClusterDatabase(pulumi.ComponentResource):
    """A machine with Debian's Valkey (password, append-only file, reachable by media nodes alone), and a replica on the load balancer.

    The replica leads while the database is away. Each node reaches the one that leads through a proxy of its own.

    Creates a `Machine` and runs the scripts that install both and set their password.
    """

    machine: Machine
    url: SecretStr
    """Connection URL for media nodes, which leads to their proxy. It contains the password."""
    registry: pulumi.Output[str]
    """Identifies the registry's data. Nodes register their streams again, by a restart, when it changes."""
    ready: list[RemoteScript]
    """Complete when the database, and its standby, answer and take the password."""

    def __init__(
        self, name: str, args: ClusterDatabaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:database:ClusterDatabase", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._password = args.password
        self.machine = Machine(name, args.machine, child)
        connection = self.machine.connection(self.machine.private_ip, args.balancer.jump_host)
        host = ScriptHost(name, self.machine, ScriptFolder.REGISTRY, connection, child)
        # Derived: the Valkeys need it in clear, and `databasePassword` changes.
        replication = args.machine.ssh.derive_password("replication")
        self._addresses = self.machine.private_ip, args.balancer.machine.private_ip

        def install(role: str, host: ScriptHost, *previous: RemoteScript) -> RemoteScript:
            return RemoteScript(
                f"{role}-valkey",
                "install-valkey.sh",
                host,
                args=[role, *self._addresses],
                secrets=[replication],
                timeout=INSTALLATION_TIMEOUT,
                opts=pulumi.ResourceOptions(parent=self, depends_on=previous),
            )

        database = install("database", host)
        standby = install("standby", args.balancer.host, args.balancer.ready, database)
        if args.machine.monitored:
            after = pulumi.ResourceOptions(parent=self, depends_on=[database])
            install_node_exporter(host, "valkey-server.service", after)
        self.registry = database.stdout.apply(_read_registry)
        self._servers = {"database": (host, database), "standby": (args.balancer.host, standby)}
        self.ready = [
            self._set_password(role, "password", "add", installed)
            for role, (_, installed) in self._servers.items()
        ]
        self.url = SecretStr(f"redis://:{quote(args.password.get_secret_value(), safe='')}@127.0.0.1:6379")
        self.register_outputs({"private_ip": self.machine.private_ip})

    def set_up_proxy(
        self, node: MachineArgs, host: ScriptHost, opts: pulumi.ResourceOptions
    ) -> list[RemoteScript]:
        """Sets up a node's proxy. Returns what must be complete before the node's server starts: not the standby."""
        proxy = RemoteScript(
            f"{node.place.name}-registry-proxy",
            "set-up-registry-proxy.sh",
            host,
            # One installation of packages is quicker than two.
            args=[*self._addresses, *([NODE_EXPORTER] if node.monitored else [])],
            timeout=INSTALLATION_TIMEOUT,
            opts=opts,
        )
        return [proxy, self.ready[0]]

    def retire_old_passwords(self, nodes: Sequence[RemoteScript]) -> None:
        """Makes the password the only valid one when all nodes use it: until then, the previous one stays valid."""
        for role, added in zip(self._servers, self.ready, strict=True):
            self._set_password(role, "only-password", "only", added, *nodes)

    def _set_password(
        self, role: str, step: str, mode: str, previous: RemoteScript, *nodes: RemoteScript
    ) -> RemoteScript:
        host, _ = self._servers[role]
        return RemoteScript(
            f"{role}-{step}",
            "set-registry-password.sh",
            host,
            args=[mode],
            secrets=[self._password],
            # Also if the password went back to one that a previous update had left on its way.
            triggers=[previous.id],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[previous, *nodes]),
        )


def _read_registry(stdout: str) -> str:
    """Returns the id in the output of install-valkey.sh."""
    return stdout.rpartition("Registry ")[2].strip()
