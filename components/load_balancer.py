"""The load balancer's machine: HAProxy and certbot, the Elastic IP and its DNS records."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_command as command

from cluster.machine_scripts import ScriptFolder
from cluster.plan import EntryPlan
from components.account_facts import EntryFacts
from components.machine import Machine, MachineArgs
from components.remote_script import INSTALLATION_TIMEOUT, RemoteScript, ScriptHost, run_hook


@dataclass(frozen=True)
class HAProxyLoadBalancerArgs:
    """Arguments of a `HAProxyLoadBalancer`."""

    machine: MachineArgs
    entry: EntryPlan
    account: EntryFacts
    """The hosted zone of the A records, `None` if the user creates them, and the user's own Elastic IP."""
    has_standby: bool
    """Whether a `ClusterDatabase` will install the registry's standby here."""


class HAProxyLoadBalancer(pulumi.ComponentResource):
    """A machine with HAProxy 3.0 and certbot behind an Elastic IP. It is the jump host to all other machines.

    Creates a `Machine`, an `aws.ec2.Eip` with its association, an `aws.route53.Record` for each name, and runs
    the scripts that install HAProxy and set the statistics password.
    """

    machine: Machine
    domain: str
    """The host name that clients use."""
    public_ip: pulumi.Output[str]
    """The Elastic IP."""
    host: ScriptHost
    """Runs scripts on the load balancer."""
    jump_host: command.remote.ProxyConnectionArgs
    """Leads to every other machine."""
    records: list[pulumi.Resource]
    """The A records."""
    ready: RemoteScript
    """Complete when HAProxy is installed and accepts a configuration."""

    def __init__(
        self, name: str, args: HAProxyLoadBalancerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:HAProxyLoadBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.domain = args.entry.domain
        self.machine = Machine(name, args.machine, child)
        allocation_id, self.public_ip = self._choose_address(name, args)
        association = aws.ec2.EipAssociation(
            f"{name}-ip", allocation_id=allocation_id, instance_id=self.machine.instance.id, opts=child
        )
        # Depends on the association, so that SSH starts only when the address leads to the machine.
        address = pulumi.Output.all(self.public_ip, association.id).apply(lambda values: str(values[0]))
        self.host = ScriptHost(
            name, self.machine, ScriptFolder.BALANCER, self.machine.connection(address), child
        )
        self.jump_host = self.machine.as_proxy(address)
        self.records = self._create_records(name, args)
        installed = RemoteScript(
            f"{name}-haproxy",
            "install-haproxy.sh",
            self.host,
            # One installation of packages is quicker than two.
            args=[args.entry.domain, *(["valkey-server", "valkey-tools"] if args.has_standby else [])],
            timeout=INSTALLATION_TIMEOUT,
            opts=child,
        )
        self.ready = RemoteScript(
            f"{name}-credentials",
            "set-statistics-password.sh",
            self.host,
            args=[args.entry.statistics_user],
            secrets=[args.entry.statistics_password],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[installed]),
        )
        if args.entry.hook:
            self.ready = run_hook(
                f"{name}-hook", args.entry.hook, self.host, args.machine.place, self.ready, child
            )
        self.register_outputs({"public_ip": self.public_ip})

    def _choose_address(
        self, name: str, args: HAProxyLoadBalancerArgs
    ) -> tuple[pulumi.Input[str], pulumi.Output[str]]:
        """Returns allocation id and address of the user's Elastic IP, or allocates one."""
        if args.entry.elastic_ip and args.account.elastic_ip:
            return args.entry.elastic_ip, pulumi.Output.from_input(args.account.elastic_ip.public_ip)
        own = aws.ec2.Eip(
            f"{name}-ip",
            domain="vpc",
            tags={"Name": f"{args.machine.cluster}-{name}"},
            opts=pulumi.ResourceOptions(
                parent=self, protect=args.entry.protect_address, hooks=args.machine.hooks
            ),
        )
        return own.allocation_id, own.public_ip

    def _create_records(self, name: str, args: HAProxyLoadBalancerArgs) -> list[pulumi.Resource]:
        if args.account.hosted_zone_id is None:
            return []
        return [
            aws.route53.Record(
                f"{name}-record-{host_name}",
                zone_id=args.account.hosted_zone_id,
                name=host_name,
                type=aws.route53.RecordType.A,
                ttl=60,
                records=[self.public_ip],
                opts=pulumi.ResourceOptions(parent=self),
            )
            for host_name in args.entry.names_in_zone
        ]
