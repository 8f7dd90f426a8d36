"""Security groups, created from the port table."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from cluster.port_table import IngressRule, PortTable, SecurityGroup

DESCRIPTIONS: Mapping[SecurityGroup, str] = {
    SecurityGroup.LOAD_BALANCER: "The HAProxy load balancer",
    SecurityGroup.RTMP: "What publishers reach on the load balancer",
    SecurityGroup.NODES: "All media nodes, origins and edges",
    SecurityGroup.ORIGINS: "What origins accept beyond other media nodes",
    SecurityGroup.DATABASE: "The cluster database",
}


@dataclass(frozen=True)
class SecurityGroupsArgs:
    """Arguments of `SecurityGroups`."""

    cluster: str
    """First part of every name and `Name` tag."""
    vpc_id: pulumi.Input[str]
    ports: PortTable


class SecurityGroups(pulumi.ComponentResource):
    """The security groups of the port table.

    Creates an `aws.ec2.SecurityGroup` for each group, an `aws.vpc.SecurityGroupIngressRule` for each ingress rule and
    address range, and an `aws.vpc.SecurityGroupEgressRule` for each egress rule.
    """

    ids: dict[SecurityGroup, pulumi.Output[str]]
    """Security group ids."""

    def __init__(
        self, name: str, args: SecurityGroupsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:network:SecurityGroups", name, None, opts)
        groups = {
            group: aws.ec2.SecurityGroup(
                f"{name}-{group}",
                # With a fixed name, a group could be replaced only after all machines had left it.
                name_prefix=f"{args.cluster}-{group}-",
                description=DESCRIPTIONS[group],
                vpc_id=args.vpc_id,
                tags={"Name": f"{args.cluster}-{group}"},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for group in dict.fromkeys(rule.security_group for rule in args.ports.ingress)
        }
        self._name, self._ports, self._groups = name, args.ports, groups
        for rule in args.ports.ingress:
            if not rule.late:
                self._open(rule)
        for rule in args.ports.egress:
            group = groups[rule.security_group]
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{rule.security_group}-egress",
                security_group_id=group.id,
                description=rule.description,
                ip_protocol="-1",
                cidr_ipv4="0.0.0.0/0",
                opts=pulumi.ResourceOptions(parent=group),
            )
        self.ids = {group: resource.id for group, resource in groups.items()}
        self.register_outputs({"ids": {str(group): id for group, id in self.ids.items()}})

    def open_late_ports(self, haproxy_cfg: pulumi.Resource) -> None:
        """Creates or changes the late rules when `haproxy_cfg` is applied."""
        for rule in self._ports.ingress:
            if rule.late:
                self._open(rule, haproxy_cfg)

    def _open(self, rule: IngressRule, *after: pulumi.Resource) -> None:
        rule_name = f"{self._name}-{rule.security_group}-{rule.name}"
        group = self._groups[rule.security_group]
        opts = pulumi.ResourceOptions(parent=group, depends_on=after)
        if rule.source in self._ports.cidrs:
            for cidr in self._ports.cidrs[rule.source]:
                _allow_ingress(f"{rule_name}-from-{cidr}", rule, group, opts, cidr=cidr)
        else:
            source = self._groups[SecurityGroup(rule.source)]
            _allow_ingress(rule_name, rule, group, opts, source_group=source)


def _allow_ingress(
    name: str,
    rule: IngressRule,
    group: aws.ec2.SecurityGroup,
    opts: pulumi.ResourceOptions,
    cidr: str | None = None,
    source_group: aws.ec2.SecurityGroup | None = None,
) -> None:
    aws.vpc.SecurityGroupIngressRule(
        name,
        security_group_id=group.id,
        description=rule.description,
        ip_protocol=rule.protocol,
        from_port=rule.from_port,
        to_port=rule.to_port,
        cidr_ipv4=cidr,
        referenced_security_group_id=source_group.id if source_group else None,
        opts=opts,
    )
