"""Media nodes: the machines that run Ant Media Server."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pulumi

from cluster.address_plan import Role
from cluster.machine_scripts import ScriptFolder, short_digest
from cluster.plan import NodePlan
from cluster.rollout import order_changes
from components.cluster_database import ClusterDatabase
from components.load_balancer import HAProxyLoadBalancer
from components.machine import Machine, MachineArgs
from components.recordings import Recordings
from components.remote_script import (
    INSTALLATION_TIMEOUT,
    RemoteScript,
    ScriptHost,
    fingerprint_script,
    install_node_exporter,
    run_hook,
)


@dataclass(frozen=True)
class NodeSetup:
    """How each node is set up and joins the cluster. Origins and edges share it."""

    node: NodePlan
    database: ClusterDatabase | None
    """The program's own cluster registry. Nodes join when it answers. When its data is lost, they restart one after the
    other, because Ant Media Server never registers again what is live."""
    balancer: HAProxyLoadBalancer
    """The way to the nodes by SSH. It takes a node out of service before the node restarts."""
    running: Collection[str]
    """Names of the machines that run already: viewers may be on them."""
    recordings: Recordings | None
    """Where the applications upload recordings."""

    @property
    def app_settings(self) -> tuple[str, pulumi.Output[str]] | None:
        """Settings of the applications, those that previews show and the secret ones; `None` if none are set."""
        given = self.node.app_settings
        if self.recordings:
            return self.recordings.complete(given)
        return (given.public, pulumi.Output.secret(given.secret.get_secret_value())) if given else None


@dataclass(frozen=True)
class MediaNodesArgs:
    """Arguments of `MediaNodes`."""

    machines: Sequence[MachineArgs]
    setup: NodeSetup
    after: Sequence[RemoteScript] = ()
    """Running nodes leave service only when these are complete: upgrades begin with the edges. New nodes do not wait."""


class MediaNodes(pulumi.ComponentResource):
    """The nodes of one role, origins or edges. A script sets up each node and ends when its applications answer.

    Creates a `Machine` for each node. HAProxy drains a node before it restarts or is replaced, and takes it back when it
    is ready. New nodes come first, all at once. Then those that run already change one by one, so a change that breaks
    a node stops at the first.
    """

    machines: list[Machine]
    public_ips: list[pulumi.Output[str]]
    ready: list[RemoteScript]
    """One for each machine, in the same order: complete when the node serves."""

    def __init__(self, name: str, args: MediaNodesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:media:MediaNodes", name, None, opts)
        machines = {machine.place.name: machine for machine in args.machines}
        self._first = next(iter(machines), None)
        created: dict[str, tuple[Machine, RemoteScript]] = {}
        after = args.after
        for node, previous in order_changes([*machines], args.setup.running).items():
            running = node in args.setup.running
            before = [created[other][1] for other in previous]
            if running:
                # The other running nodes wait for this one.
                before, after = [*before, *after], ()
            created[node] = self._create_node(machines[node], args.setup, before, running)
        self.machines = [created[node][0] for node in machines]
        self.ready = [created[node][1] for node in machines]
        self.public_ips = [machine.public_ip for machine in self.machines]
        self.register_outputs({"private_ips": [machine.private_ip for machine in self.machines]})

    def _create_node(
        self, args: MachineArgs, setup: NodeSetup, previous: Sequence[RemoteScript], running: bool
    ) -> tuple[Machine, RemoteScript]:
        node, plan, database = args.place.name, setup.node, setup.database
        # Without a registry, a single node runs in standalone mode.
        database_url = database.url if database else plan.database_url
        registry = database.registry if database else ""
        script, mode = "set-up-media-node.sh", "cluster" if database_url else "standalone"
        at_start = plan.server_settings.at_start
        # Changes with everything that replaces the machine or restarts its server. The panel's user, live settings, the applications,
        # the zip's URL and the shared secret do not: another seed replaces the machine.
        restarts = fingerprint_script(
            ScriptFolder.NODE,
            script,
            [plan.source, mode, at_start],
            [plan.license_key, database_url, plan.server_settings.secret],
        )
        # The machine's fingerprint depends on its private host key, so a digest with it reveals nothing about the secrets.
        digest = short_digest(args.fingerprint + restarts)
        served_with = pulumi.Output.concat(digest, "-", registry)
        secrets = [plan.license_key, plan.panel_password, database_url, plan.server_settings.secret]
        drained = RemoteScript(
            f"{node}-drain",
            "drain-server.sh",
            setup.balancer.host,
            args=[node, str(plan.drain_seconds), served_with],
            timeout=plan.drain_seconds + 120,
            opts=self._after(*previous),
        )
        # A first machine has no viewers, so it does not wait for the load balancer.
        machine = Machine(node, args, self._after(*([drained] if running else [])))
        connection = machine.connection(machine.private_ip, setup.balancer.jump_host)
        host = ScriptHost(node, machine, ScriptFolder.NODE, connection, self._after())
        reachable = database.set_up_proxy(args, host, self._after()) if database else []
        set_up = RemoteScript(
            f"{node}-ant-media",
            script,
            host,
            args=[
                plan.source,
                mode,
                plan.panel_email,
                at_start,
                _format_live_settings(plan, machine),
                *plan.applications,
            ],
            secrets=[*secrets, plan.zip_url, args.ssh.derive_password("shared by nodes")],
            stdin=pulumi.Output.concat(registry, "\n"),
            # While the registry is unknown, so is standard input: this digest then ties a saved plan to the secrets.
            triggers=[
                short_digest(args.fingerprint + fingerprint_script(ScriptFolder.NODE, script, [], secrets))
            ],
            timeout=INSTALLATION_TIMEOUT + 900,
            opts=self._after(drained, *reachable),
        )
        if args.monitored:
            # After the set-up: the `apt-get update` of Ant Media's installer does not wait for another one.
            install_node_exporter(host, "antmedia.service", self._after(set_up))
        # On one node, from which the others in the cluster get them, and before viewers reach it: they may protect streams.
        if args.place.role == Role.ORIGIN and node == self._first and (settings := setup.app_settings):
            set_up = RemoteScript(
                f"{node}-app-settings",
                "set-app-settings.py",
                host,
                args=[plan.panel_email, settings[0]],
                secrets=[plan.panel_password],
                stdin=pulumi.Output.concat(settings[1], "\n"),
                triggers=[registry],
                opts=self._after(set_up, *(setup.recordings.permissions if setup.recordings else [])),
            )
        if plan.hook:
            set_up = run_hook(f"{node}-hook", plan.hook, host, args.place, set_up, self._after())
        in_service = RemoteScript(
            f"{node}-in-service",
            "return-server.sh",
            setup.balancer.host,
            args=[node, served_with],
            # After each drain, whatever caused it: nothing else returns the node to service.
            triggers=[drained.id, *machine.starts],
            opts=self._after(set_up),
        )
        return machine, in_service

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=resources)


def _format_live_settings(plan: NodePlan, machine: Machine) -> pulumi.Input[str]:
    live = plan.server_settings.live
    if not plan.announces_address:
        return json.dumps(live)
    return machine.public_ip.apply(lambda address: json.dumps({**live, "server.name": address}))


def drain_removed_nodes(
    name: str, setup: NodeSetup, roles: Sequence[MediaNodes], opts: pulumi.ResourceOptions
) -> RemoteScript:
    """Drains the nodes that HAProxy has and the program no longer creates. Waits until all others are ready."""
    seconds = setup.node.drain_seconds
    ready = [script for role in roles for script in role.ready]
    return RemoteScript(
        name,
        "drain-removed-servers.sh",
        setup.balancer.host,
        args=[str(seconds), *(machine.name for role in roles for machine in role.machines)],
        timeout=seconds + 120,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=ready)),
    )
