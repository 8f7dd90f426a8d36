"""Ant Media Server nodes of one role."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import pulumi
import pulumi_command as command

from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript


@dataclass(frozen=True)
class MediaNodesArgs:
    """The nodes' machines, how they become a cluster, and the load balancer as the way to them."""

    machines: Sequence[MachineArgs]
    jump_host: command.remote.ProxyConnectionArgs
    install: bool
    """Whether Ant Media's installer must run first (a bare Ubuntu image)."""
    database_url: str | None
    """Secret. ``None`` for a single node, which stays in standalone mode."""
    license_key: str | None
    panel_email: str
    panel_password: str
    after: Sequence[pulumi.Resource]
    """What must be ready before a node joins: the database."""


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
        at_a_time = ceil(len(args.machines) / 4)
        for index, machine_args in enumerate(args.machines):
            node = machine_args.planned.name
            before = self.ready[index - at_a_time : index - at_a_time + 1] if index >= at_a_time else []
            machine = Machine(node, machine_args, pulumi.ResourceOptions(parent=self, depends_on=before))
            self.machines.append(machine)
            self.ready.append(
                RemoteScript(
                    f"{node}-ant-media",
                    "set-up-media-node.sh",
                    machine,
                    machine.connection(machine.private_ip, args.jump_host),
                    args=[
                        "install" if args.install else "installed",
                        "cluster" if args.database_url else "standalone",
                        args.panel_email,
                    ],
                    secret_stdin="\n".join(
                        [args.license_key or "", args.panel_password, args.database_url or "", ""]
                    ),
                    timeout=1200,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[*args.after]),
                )
            )
        self.register_outputs({"private_ips": [machine.private_ip for machine in self.machines]})
