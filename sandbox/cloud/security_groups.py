"""EC2 security groups as nftables text. Pure: rules and members in, one machine's whole ruleset out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from sandbox.cloud import addresses

ANY = "-1"
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp"}


@dataclass(frozen=True, order=True)
class Rule:
    """One permission of a group: who (networks and groups) may use which protocol and ports."""

    protocol: str
    from_port: int = -1
    to_port: int = -1
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    id: str
    name: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


Members = Mapping[str, Sequence[str]]
"""Group id → private addresses of the machines in it."""


def render(groups: Iterable[Group], members: Members) -> str:
    """The ruleset of a machine that is in `groups`: stateful, what no rule permits is dropped without a word, as in EC2."""
    ordered = sorted(groups, key=lambda group: group.id)
    lines = [
        "table inet security_groups",
        "delete table inet security_groups",
        "table inet security_groups {",
        "  chain ingress {",
        "    type filter hook input priority filter; policy drop;",
        "    iifname lo accept",
        "    ct state established,related accept",
        *_chain(((group, group.ingress) for group in ordered), "saddr", members),
        "  }",
        "  chain egress {",
        "    type filter hook output priority filter; policy drop;",
        "    oifname lo accept",
        "    ct state established,related accept",
        "    # as the VPC's resolver and the metadata service, which no group can close",
        f"    ip daddr {addresses.DNS} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"    ip daddr {addresses.METADATA} tcp dport 80 accept",
        *_chain(((group, group.egress) for group in ordered), "daddr", members),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _chain(
    groups: Iterable[tuple[Group, tuple[Rule, ...]]], direction: str, members: Members
) -> Iterable[str]:
    for group, rules in groups:
        yield f"    # {group.id} {' '.join(group.name.split())}"
        for rule in sorted(rules):
            # Collapsed because nftables refuses a set with overlaps. Empty: a group that nobody is in.
            peers = collapse_addresses(map(IPv4Network, (*rule.networks, *_in(rule.groups, members))))
            if who := ", ".join(map(str, sorted(peers))):
                yield f"    ip {direction} {{ {who} }} {_what(rule)}accept"


def _in(groups: Iterable[str], members: Members) -> Iterable[str]:
    return (address for group in groups for address in members.get(group, ()))


def _what(rule: Rule) -> str:
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
