"""Who may come in where: the rules of security groups, in whichever of AWS's notations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policy.resource import UNKNOWN, Resource, as_list, leaves, member, texts

INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
GROUPS = ("aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
_PROTOCOLS = {"-1": "all", "6": "tcp", "17": "udp"}
_LAST_PORT = 65535


@dataclass(frozen=True)
class Way:
    resource: Resource
    protocol: str
    from_port: int
    to_port: int
    cidrs: tuple[str, ...]
    """Networks that may come in."""
    groups: tuple[str, ...]
    """What else may: the names of security groups, or else their ids or those of prefix lists."""
    into: str
    """The name of the security group, or else its id; empty where it is not known."""
    hidden: bool
    """Whether some of those who may come in are not known."""

    def opens(self, port: int) -> bool:
        """To TCP."""
        return self.protocol in ("tcp", "all") and self.from_port <= port <= self.to_port

    def __str__(self) -> str:
        ports = f"{self.from_port}" if self.from_port == self.to_port else f"{self.from_port}-{self.to_port}"
        return f"{ports}/{self.protocol}"


def ways(resources: Iterable[Resource]) -> Iterator[Way]:
    for resource in resources:
        inputs = resource.inputs
        if resource.type == INGRESS_RULE:
            yield from _way(resource, inputs, inputs.get("ipProtocol"))
        elif resource.type == OLD_RULE and inputs.get("type") != "egress":
            yield from _way(resource, inputs, inputs.get("protocol"))
        elif resource.type in GROUPS:
            for block in as_list(inputs.get("ingress")):
                yield from _way(resource, block, member(block, "protocol"))


_NETWORKS = ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks")
_OTHERS = (
    "referencedSecurityGroupId",
    "sourceSecurityGroupId",
    "securityGroups",
    "prefixListId",
    "prefixListIds",
)


def _way(resource: Resource, end: Any, protocol: Any) -> Iterator[Way]:
    """`end`: what says of it who may come in and where to, the resource's inputs or a part of them."""
    ports = [member(end, "fromPort"), member(end, "toPort")]
    if UNKNOWN in (protocol, *ports):
        return
    protocol = str(protocol).lower()
    protocol = _PROTOCOLS.get(protocol, protocol)
    if protocol not in ("tcp", "udp", "icmp", "icmpv6"):
        protocol = "all"
    # AWS takes all protocols together with all ports, whatever is said of ports.
    if protocol == "all" or not all(isinstance(port, int | float) and port >= 0 for port in ports):
        ports = [0, _LAST_PORT]
    into = (
        [resource.name]
        if resource.type in GROUPS
        else _named(resource, "securityGroupId", member(end, "securityGroupId"))
    )
    groups = [group for key in _OTHERS for group in _named(resource, key, member(end, key))]
    yield Way(
        resource=resource,
        protocol=protocol,
        from_port=int(ports[0]),
        to_port=int(ports[1]),
        cidrs=tuple(dict.fromkeys(cidr for key in _NETWORKS for cidr in texts(member(end, key)))),
        groups=tuple([*groups, *into] if member(end, "self") is True else groups),
        into=next(iter(into), ""),
        hidden=any(
            text == UNKNOWN for key in (*_NETWORKS, *_OTHERS) for _, text in leaves(key, member(end, key))
        ),
    )


def _named(resource: Resource, key: str, value: Any) -> Sequence[str]:
    """The names behind ids, or the ids where they are none of this stack's."""
    return resource.depends.get(key) or texts(value)
