"""Ant Media Server nodes of one role."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import pulumi
import pulumi_command as command
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder
from components.cluster_database import ClusterDatabase
from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript, ScriptHost


@dataclass(frozen=True)
class Membership:
    """How nodes become members of the cluster; the same for all of them."""

    install: bool
    """Whether Ant Media's installer must run first (a bare Ubuntu image)."""
    database_url: SecretStr | None
    """``None`` for a single node, which stays in standalone mode."""
    license_key: SecretStr | None
    panel_email: str
    """The web panel's first administrator."""
    panel_password: SecretStr
    jump_host: command.remote.ProxyConnectionArgs
    """The load balancer as the way to the nodes."""
    database: ClusterDatabase | None
    """Where the program has one: it must be ready before a node joins, and a new one knows no administrator."""


@dataclass(frozen=True)
class MediaNodesArgs:
    """The nodes' machines, and how they join."""

    machines: Sequence[MachineArgs]
    membership: Membership


class MediaNodes(pulumi.ComponentResource):
    """Origins or edges. Each node joins the cluster by a script over SSH and is ready when its applications answer.

    At most a quarter of a role, rounded up, is made or replaced at a time: two nodes go one by one, and a change that
    breaks a node stops there.
    """

    machines: list[Machine]
    ready: list[RemoteScript]
    """One for each machine, in the same order: done when the node serves."""

    def __init__(self, name: str, args: MediaNodesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:media:MediaNodes", name, None, opts)
        self.machines = []
        self.ready = []
        join = args.membership
        at_a_time = ceil(len(args.machines) / 4)
        for index, machine_args in enumerate(args.machines):
            node = machine_args.planned.name
            before = self.ready[index - at_a_time : index - at_a_time + 1] if index >= at_a_time else []
            machine = Machine(node, machine_args, pulumi.ResourceOptions(parent=self, depends_on=before))
            host = ScriptHost(
                node,
                machine,
                ScriptFolder.NODE,
                machine.connection(machine.private_ip, join.jump_host),
                pulumi.ResourceOptions(parent=self),
            )
            script = RemoteScript(
                f"{node}-ant-media",
                "set-up-media-node.sh",
                host,
                args=[
                    "install" if join.install else "installed",
                    "cluster" if join.database_url else "standalone",
                    join.panel_email,
                ],
                secrets=[join.license_key, join.panel_password, join.database_url],
                triggers=join.database.machine.starts if join.database else [],
                timeout=1200,
                opts=pulumi.ResourceOptions(
                    parent=self, depends_on=[join.database.ready] if join.database else []
                ),
            )
            self.machines.append(machine)
            self.ready.append(script)
        self.register_outputs({"private_ips": [machine.private_ip for machine in self.machines]})
