"""Security groups, made from the port table."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from cluster.port_table import EgressRule, Rule, SecurityGroup, Source

DESCRIPTIONS = {
    SecurityGroup.LOAD_BALANCER: "The HAProxy load balancer",
    SecurityGroup.NODES: "All media nodes, origins and edges",
    SecurityGroup.ORIGINS: "What origins accept beyond other media nodes",
    SecurityGroup.DATABASE: "The cluster database",
}


@dataclass(frozen=True)
class SecurityGroupsArgs:
    """The rules, and the addresses behind their sources."""

    cluster: str
    vpc_id: pulumi.Input[str]
    rules: Sequence[Rule]
    egress_rules: Sequence[EgressRule]
    admin_cidrs: Sequence[str]
    publisher_cidrs: Sequence[str]


class SecurityGroups(pulumi.ComponentResource):
    """One ``aws.ec2.SecurityGroup`` for each group of the port table, one rule resource for each rule and source range."""

    ids: dict[SecurityGroup, pulumi.Output[str]]
    """Group ids."""

    def __init__(
        self, name: str, args: SecurityGroupsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:network:SecurityGroups", name, None, opts)
        cidrs = {
            Source.WORLD: ["0.0.0.0/0"],
            Source.ADMINS: args.admin_cidrs,
            Source.PUBLISHERS: args.publisher_cidrs,
        }
        groups = {
            group: aws.ec2.SecurityGroup(
                f"{name}-{group}",
                # With a whole name of its own, a group could be replaced only after the machines had left the old one.
                name_prefix=f"{args.cluster}-{group}-",
                description=DESCRIPTIONS[group],
                vpc_id=args.vpc_id,
                tags={"Name": f"{args.cluster}-{group}"},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for group in dict.fromkeys(rule.security_group for rule in args.rules)
        }
        for rule in args.rules:
            rule_name = f"{name}-{rule.security_group}-{rule.name}"
            group = groups[rule.security_group]
            if rule.source in cidrs:
                for cidr in cidrs[rule.source]:
                    self._ingress(f"{rule_name}-from-{cidr}", rule, group, cidr=cidr)
            else:
                self._ingress(rule_name, rule, group, member_of=groups[SecurityGroup(rule.source)])
        for rule in args.egress_rules:
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{rule.security_group}-egress",
                security_group_id=groups[rule.security_group].id,
                description=rule.description,
                ip_protocol="-1",
                cidr_ipv4="0.0.0.0/0",
                opts=pulumi.ResourceOptions(parent=groups[rule.security_group]),
            )
        self.ids = {group: resource.id for group, resource in groups.items()}
        self.register_outputs({"ids": {str(group): id for group, id in self.ids.items()}})

    @staticmethod
    def _ingress(
        name: str,
        rule: Rule,
        group: aws.ec2.SecurityGroup,
        cidr: str | None = None,
        member_of: aws.ec2.SecurityGroup | None = None,
    ) -> None:
        aws.vpc.SecurityGroupIngressRule(
            name,
            security_group_id=group.id,
            description=rule.description,
            ip_protocol=rule.protocol,
            from_port=rule.from_port,
            to_port=rule.to_port,
            cidr_ipv4=cidr,
            referenced_security_group_id=None if member_of is None else member_of.id,
            opts=pulumi.ResourceOptions(parent=group),
        )
