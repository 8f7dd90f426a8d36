"""The HAProxy virtual machine: packages, credentials, address and name."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_command as command
from pydantic import SecretStr

from cluster.machine_scripts import ScriptFolder
from components.machine import Machine, MachineArgs
from components.remote_script import RemoteScript, ScriptHost


@dataclass(frozen=True)
class HAProxyLoadBalancerArgs:
    """The machine, its names for clients, and who may see HAProxy's statistics."""

    machine: MachineArgs
    domain: str
    zone_id: str | None
    """Hosted zone in which A records are made; ``None``: the user makes them."""
    names_in_zone: Sequence[str]
    """Names that get an A record."""
    statistics_user: str
    statistics_password: SecretStr
    protect_address: bool = False
    """Whether the engine refuses to delete or replace the Elastic IP."""


class HAProxyLoadBalancer(pulumi.ComponentResource):
    """A machine with HAProxy 3.0 and certbot behind an Elastic IP, and the way to all other machines."""

    machine: Machine
    domain: str
    """The name under which clients know it."""
    public_ip: pulumi.Output[str]
    """The Elastic IP."""
    host: ScriptHost
    """The load balancer as a machine that runs scripts."""
    jump_host: command.remote.ProxyConnectionArgs
    """The load balancer as the way to every other machine."""
    records: list[pulumi.Resource]
    """The DNS records that were made."""
    ready: RemoteScript
    """Done when HAProxy can be given its configuration."""

    def __init__(
        self, name: str, args: HAProxyLoadBalancerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:HAProxyLoadBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.domain = args.domain
        self.machine = Machine(name, args.machine, child)
        tags = {"Name": f"{args.machine.cluster}-{name}"}
        elastic_ip = aws.ec2.Eip(
            f"{name}-ip",
            domain="vpc",
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect_address),
        )
        association = aws.ec2.EipAssociation(
            f"{name}-ip",
            allocation_id=elastic_ip.allocation_id,
            instance_id=self.machine.instance.id,
            opts=child,
        )
        self.public_ip = elastic_ip.public_ip
        # Through the association, so that nobody dials before the address leads to the machine.
        address = pulumi.Output.all(elastic_ip.public_ip, association.id).apply(lambda values: str(values[0]))
        self.host = ScriptHost(
            name, self.machine, ScriptFolder.BALANCER, self.machine.connection(address), child
        )
        self.jump_host = self.machine.as_proxy(address)
        self.records = [
            aws.route53.Record(
                f"{name}-record-{host_name}",
                zone_id=args.zone_id,
                name=host_name,
                type=aws.route53.RecordType.A,
                ttl=60,
                records=[self.public_ip],
                opts=child,
            )
            for host_name in args.names_in_zone
            if args.zone_id
        ]

        installed = RemoteScript(
            f"{name}-haproxy", "install-haproxy.sh", self.host, args=[args.domain], timeout=600, opts=child
        )
        self.ready = RemoteScript(
            f"{name}-credentials",
            "set-statistics-password.sh",
            self.host,
            args=[args.statistics_user],
            secrets=[args.statistics_password],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[installed]),
        )
        self.register_outputs({"public_ip": self.public_ip})
