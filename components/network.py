"""The network: a VPC of the cluster, or existing subnets."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from cluster.address_plan import AddressPlan


@dataclass(frozen=True)
class NetworkArgs:
    """Arguments of a `Network`."""

    cluster: str
    """First part of every `Name` tag."""
    plan: AddressPlan
    zones: Sequence[str]
    """The availability zone of each subnet to create."""
    vpc_id: str | None
    """The VPC of existing subnets."""
    hooks: pulumi.ResourceHookBinding
    """Explains why AWS does not create a VPC."""


class Network(pulumi.ComponentResource):
    """Public subnets, one in each availability zone.

    If the plan has a VPC, creates it with an internet gateway, a route table and the subnets. Otherwise creates nothing
    and uses the existing subnets.
    """

    vpc_id: pulumi.Output[str]
    """The VPC of all subnets."""
    subnet_ids: list[pulumi.Output[str]]
    """In the order of the plan: `subnet_ids[machine.subnet]` is a machine's subnet."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:network:Network", name, None, opts)
        if args.plan.vpc_cidr is None:
            self.vpc_id = pulumi.Output.from_input(args.vpc_id or "")
            self.subnet_ids = [pulumi.Output.from_input(subnet.id or "") for subnet in args.plan.subnets]
        else:
            self._create(name, args, args.plan.vpc_cidr)
        self.register_outputs({"vpc_id": self.vpc_id, "subnet_ids": self.subnet_ids})

    def _create(self, name: str, args: NetworkArgs, vpc_cidr: str) -> None:
        child = pulumi.ResourceOptions(parent=self)
        tags = {"Name": args.cluster}
        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=vpc_cidr,
            enable_dns_hostnames=True,
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, hooks=args.hooks),
        )
        gateway = aws.ec2.InternetGateway(
            f"{name}-gateway",
            vpc_id=vpc.id,
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                # The provider would move the gateway to a new VPC. AWS refuses that while machines of the old VPC have public
                # addresses, and they leave it only after the new VPC has its gateway.
                replace_on_changes=["vpcId"],
            ),
        )
        routes = aws.ec2.RouteTable(f"{name}-routes", vpc_id=vpc.id, tags=tags, opts=child)
        to_internet = aws.ec2.Route(
            f"{name}-to-internet",
            route_table_id=routes.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=child,
        )
        self.vpc_id = vpc.id
        self.subnet_ids = []
        for planned, zone in zip(args.plan.subnets, args.zones, strict=True):
            subnet = aws.ec2.Subnet(
                f"{name}-subnet{planned.index + 1}",
                vpc_id=vpc.id,
                cidr_block=planned.cidr,
                availability_zone=zone,
                tags={"Name": f"{args.cluster}-{zone}"},
                opts=child,
            )
            association = aws.ec2.RouteTableAssociation(
                f"{name}-routes{planned.index + 1}", subnet_id=subnet.id, route_table_id=routes.id, opts=child
            )
            # Depends on the routes: machines need the internet from their first boot.
            self.subnet_ids.append(
                pulumi.Output.all(subnet.id, association.id, to_internet.id).apply(lambda ids: str(ids[0]))
            )
