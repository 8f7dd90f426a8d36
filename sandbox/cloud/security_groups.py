"""Renders EC2 security groups as the nftables ruleset of a machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from sandbox.cloud import addresses

ANY = "-1"
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp"}


@dataclass(frozen=True, order=True)
class Rule:
    """An ingress or egress rule: peers (CIDR blocks and groups), protocol and ports."""

    protocol: str
    from_port: int = -1
    to_port: int = -1
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A security group with its rules."""

    id: str
    name: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


Members = Mapping[str, Sequence[str]]
"""Private addresses of the instances in each group, by group id."""


def render(groups: Iterable[Group], members: Members) -> str:
    """Returns the ruleset of a machine in `groups`: stateful; drops all traffic that no rule allows."""
    ordered = sorted(groups, key=lambda group: group.id)
    lines = [
        "table inet security_groups",
        "delete table inet security_groups",
        "table inet security_groups {",
        "  chain ingress {",
        "    type filter hook input priority filter; policy drop;",
        "    iifname lo accept",
        "    ct state established,related accept",
        *_render_rules(((group, group.ingress) for group in ordered), "saddr", members),
        "  }",
        "  chain egress {",
        "    type filter hook output priority filter; policy drop;",
        "    oifname lo accept",
        "    ct state established,related accept",
        "    # the VPC's resolver and the metadata service: security groups do not apply to them",
        f"    ip daddr {addresses.DNS} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"    ip daddr {addresses.METADATA} tcp dport 80 accept",
        *_render_rules(((group, group.egress) for group in ordered), "daddr", members),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _render_rules(
    groups: Iterable[tuple[Group, tuple[Rule, ...]]], direction: str, members: Members
) -> Iterable[str]:
    for group, rules in groups:
        yield f"    # {group.id} {' '.join(group.name.split())}"
        for rule in sorted(rules):
            # nftables rejects a set with overlaps. The set is empty if the group has no members.
            peers = collapse_addresses(
                map(IPv4Network, (*rule.networks, *_addresses_of(rule.groups, members)))
            )
            if addresses_text := ", ".join(map(str, sorted(peers))):
                yield f"    ip {direction} {{ {addresses_text} }} {_render_match(rule)}accept"


def _addresses_of(groups: Iterable[str], members: Members) -> Iterable[str]:
    return (address for group in groups for address in members.get(group, ()))


def _render_match(rule: Rule) -> str:
    protocol = _PROTOCOLS.get(rule.protocol, rule.protocol)
    if protocol == ANY:
        return ""
    if protocol == "icmp":
        kind = "" if rule.from_port == -1 else f"icmp type {rule.from_port} "
        code = "" if rule.from_port == -1 or rule.to_port == -1 else f"icmp code {rule.to_port} "
        return f"{kind}{code}" or "meta l4proto icmp "
    if protocol not in ("tcp", "udp"):
        return f"meta l4proto {protocol} "
    if (rule.from_port, rule.to_port) in ((0, 65535), (-1, -1)):
        return f"meta l4proto {protocol} "
    ports = str(rule.from_port) if rule.from_port == rule.to_port else f"{rule.from_port}-{rule.to_port}"
    return f"{protocol} dport {ports} "
