"""Media nodes: the machines that run Ant Media Server."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import pulumi
import pulumi_command as command

from cluster.machine_scripts import ScriptFolder
from cluster.plan import NodePlan
from components.cluster_database import ClusterDatabase
from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript, ScriptHost


@dataclass(frozen=True)
class NodeSetup:
    """How each node is set up and joins the cluster. Origins and edges share it."""

    node: NodePlan
    database: ClusterDatabase | None
    """The program's own cluster registry. Nodes join when it answers, and again when its machine is replaced."""
    jump_host: command.remote.ProxyConnectionArgs
    """The load balancer, through which SSH reaches the nodes."""


@dataclass(frozen=True)
class MediaNodesArgs:
    """Arguments of `MediaNodes`."""

    machines: Sequence[MachineArgs]
    setup: NodeSetup


class MediaNodes(pulumi.ComponentResource):
    """The nodes of one role, origins or edges. A script sets up each node and ends when its applications answer.

    Creates a `Machine` for each node. At most a quarter of the role, rounded up, is created or replaced at a time. Two
    nodes are therefore replaced one after the other, and a change that breaks a node stops at the first.
    """

    machines: list[Machine]
    ready: list[RemoteScript]
    """One for each machine, in the same order: complete when the node serves."""

    def __init__(self, name: str, args: MediaNodesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:media:MediaNodes", name, None, opts)
        self.machines = []
        self.ready = []
        at_once = ceil(len(args.machines) / 4)
        for index, machine_args in enumerate(args.machines):
            previous = self.ready[index - at_once : index - at_once + 1] if index >= at_once else []
            name = machine_args.place.name
            machine = Machine(name, machine_args, pulumi.ResourceOptions(parent=self, depends_on=previous))
            self.machines.append(machine)
            self.ready.append(self._set_up(name, machine, args.setup))
        self.register_outputs({"private_ips": [machine.private_ip for machine in self.machines]})

    def _set_up(self, node: str, machine: Machine, setup: NodeSetup) -> RemoteScript:
        connection = machine.connection(machine.private_ip, setup.jump_host)
        child = pulumi.ResourceOptions(parent=self)
        node_plan, database = setup.node, setup.database
        # Without a registry, a single node runs in standalone mode.
        database_url = database.url if database else node_plan.database_url
        return RemoteScript(
            f"{node}-ant-media",
            "set-up-media-node.sh",
            ScriptHost(node, machine, ScriptFolder.NODE, connection, child),
            args=[
                "install" if node_plan.install else "installed",
                "cluster" if database_url else "standalone",
                node_plan.panel_email,
                *node_plan.applications,
            ],
            secrets=[node_plan.license_key, node_plan.panel_password, database_url],
            triggers=database.machine.starts if database else [],
            timeout=1200,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[database.ready] if database else []),
        )
