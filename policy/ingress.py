"""Reads ingress rules from every kind of resource that can define them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policy.resource import UNKNOWN, Resource, as_list, get_member, known_strings, walk_leaves

INGRESS_RULE_TYPE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
LEGACY_RULE_TYPE = "aws:ec2/securityGroupRule:SecurityGroupRule"
SECURITY_GROUP_TYPES = (
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
)
_PROTOCOLS = {"-1": "all", "6": "tcp", "17": "udp"}
_LAST_PORT = 65535


@dataclass(frozen=True)
class IngressRule:
    """A range of ports that a security group opens to its sources."""

    resource: Resource
    """The resource that defines the rule."""
    protocol: str
    """tcp, udp, icmp, icmpv6 or all."""
    from_port: int
    to_port: int
    cidrs: tuple[str, ...]
    """Source networks, IPv4 and IPv6."""
    source_groups: tuple[str, ...]
    """Other sources: names of security groups; ids of prefix lists and of security groups outside the stack."""
    security_group: str
    """Name of the security group; its id if the group is outside the stack; empty if unknown."""
    has_unknown_source: bool

    def opens(self, port: int) -> bool:
        """Returns whether the rule allows TCP connections to a port."""
        return self.protocol in ("tcp", "all") and self.from_port <= port <= self.to_port

    def __str__(self) -> str:
        ports = f"{self.from_port}" if self.from_port == self.to_port else f"{self.from_port}-{self.to_port}"
        return f"{ports}/{self.protocol}"


def read_ingress_rules(resources: Iterable[Resource]) -> Iterator[IngressRule]:
    """Yields the ingress rules that the resources define. Rules with an unknown protocol or port are left out."""
    for resource in resources:
        inputs = resource.inputs
        if resource.type == INGRESS_RULE_TYPE:
            yield from _read_rule(resource, inputs, inputs.get("ipProtocol"))
        elif resource.type == LEGACY_RULE_TYPE and inputs.get("type") != "egress":
            yield from _read_rule(resource, inputs, inputs.get("protocol"))
        elif resource.type in SECURITY_GROUP_TYPES:
            for block in as_list(inputs.get("ingress")):
                yield from _read_rule(resource, block, get_member(block, "protocol"))


_CIDR_KEYS = ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks")
_GROUP_KEYS = (
    "referencedSecurityGroupId",
    "sourceSecurityGroupId",
    "securityGroups",
    "prefixListId",
    "prefixListIds",
)


def _read_rule(resource: Resource, rule: Any, protocol: Any) -> Iterator[IngressRule]:
    """Yields at most one rule. `rule` is the object with its ports and sources: the inputs or an `ingress` block."""
    ports = [get_member(rule, "fromPort"), get_member(rule, "toPort")]
    if UNKNOWN in (protocol, *ports):
        return
    protocol = str(protocol).lower()
    protocol = _PROTOCOLS.get(protocol, protocol)
    if protocol not in ("tcp", "udp", "icmp", "icmpv6"):
        protocol = "all"
    # For all protocols AWS opens all ports and ignores fromPort and toPort.
    if protocol == "all" or not all(isinstance(port, int | float) and port >= 0 for port in ports):
        ports = [0, _LAST_PORT]
    security_groups = (
        [resource.name]
        if resource.type in SECURITY_GROUP_TYPES
        else _names_or_ids(resource, "securityGroupId", get_member(rule, "securityGroupId"))
    )
    source_groups = [
        group for key in _GROUP_KEYS for group in _names_or_ids(resource, key, get_member(rule, key))
    ]
    if get_member(rule, "self") is True:
        source_groups += security_groups
    yield IngressRule(
        resource=resource,
        protocol=protocol,
        from_port=int(ports[0]),
        to_port=int(ports[1]),
        cidrs=tuple(
            dict.fromkeys(cidr for key in _CIDR_KEYS for cidr in known_strings(get_member(rule, key)))
        ),
        source_groups=tuple(source_groups),
        security_group=next(iter(security_groups), ""),
        has_unknown_source=any(
            text == UNKNOWN
            for key in (*_CIDR_KEYS, *_GROUP_KEYS)
            for _, text in walk_leaves(key, get_member(rule, key))
        ),
    )


def _names_or_ids(resource: Resource, key: str, value: Any) -> Sequence[str]:
    """Returns the names of the resources that an input refers to, or the ids of resources outside the stack."""
    return resource.dependencies.get(key) or known_strings(value)
