"""Checks whether AWS's security group rules let this machine reach the load balancer's administration ports."""

import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from cluster.port_table import SecurityGroup
from cluster.settings.model import NAMESPACE
from operations.stack_state import StackState

SSH_PORT = 22
_CHECK_IP = "https://checkip.amazonaws.com"
_GROUP = f"firewall-{SecurityGroup.LOAD_BALANCER}"
"""Name of the load balancer's security group in the stack."""
_KEY = f"{NAMESPACE}:adminCidrs"


@dataclass(frozen=True)
class OperatorAccess:
    """Which addresses AWS admits to the load balancer's ports, and which the settings name."""

    stack: str
    admin_cidrs: Sequence[str]
    admitted: Mapping[int, frozenset[IPv4Network]]
    """Networks by port. A port with a rule for a prefix list is missing: its addresses are unknown."""

    def find_problem(self, ports: Iterable[int], own: IPv4Address | None) -> "AccessProblem | None":
        """Returns why ports do not admit this machine, with the command that changes it.

        `own` is this machine's address as AWS sees it. If it is unknown, reports every port that is not open to all.
        """
        closed = [port for port in ports if port in self.admitted and not self._admits(port, own)]
        return AccessProblem(closed, self._explain(closed, own)) if closed else None

    def _explain(self, closed: Sequence[int], own: IPv4Address | None) -> str:
        networks = sorted({network for port in closed for network in self.admitted[port]})
        numbers = ", ".join(map(str, closed))
        rules = (
            f"the load balancer's security group admits {', '.join(map(str, networks)) or 'nobody'} "
            f"to port{'s' if len(closed) > 1 else ''} {numbers}"
        )
        if own is None:
            return (
                f"{rules}, and {_CHECK_IP} does not tell whether this machine's address is among them. "
                f"If it is not, add it: {self._add_command('ADDRESS/32')}"
            )
        missing = f"{rules}, and this machine's address {own} is not among them"
        if any(own in IPv4Network(cidr, strict=False) for cidr in self.admin_cidrs):
            return f"{missing}, although {_KEY} has it: run make up STACK={self.stack}"
        return (
            f"{missing}. Run this from an address that is, or add this one: {self._add_command(f'{own}/32')}"
        )

    def _admits(self, port: int, own: IPv4Address | None) -> bool:
        return any(own in network if own else network.prefixlen == 0 for network in self.admitted[port])

    def _add_command(self, cidr: str) -> str:
        path = f"'{_KEY}[{len(self.admin_cidrs)}]'"
        return f"pulumi config set --stack {self.stack} --path {path} {cidr}, then make up STACK={self.stack}"


@dataclass(frozen=True)
class AccessProblem:
    ports: Sequence[int]
    """Ports that may not admit this machine."""
    reason: str


def read_access(
    state: StackState,
    configuration: Mapping[str, Any],
    rules: Iterable[Mapping[str, Any]],
    ports: Iterable[int],
) -> OperatorAccess:
    """Reads `DescribeSecurityGroupRules`, and `adminCidrs` from the JSON of `pulumi config`."""
    own_rules = [
        rule
        for rule in rules
        if state.security_groups.get(rule["GroupId"]) == _GROUP and not rule["IsEgress"]
    ]
    by_port = {port: [rule for rule in own_rules if _opens(rule, port)] for port in ports}
    return OperatorAccess(
        state.stack,
        _read_admin_cidrs(configuration),
        {
            port: frozenset(IPv4Network(rule["CidrIpv4"]) for rule in opening if "CidrIpv4" in rule)
            for port, opening in by_port.items()
            if not any("PrefixListId" in rule for rule in opening)
        },
    )


def _opens(rule: Mapping[str, Any], port: int) -> bool:
    if rule["IpProtocol"] == "-1":
        return True
    return rule["IpProtocol"] == "tcp" and rule["FromPort"] <= port <= rule["ToPort"]


def _read_admin_cidrs(configuration: Mapping[str, Any]) -> Sequence[str]:
    entry: Mapping[str, Any] = configuration.get(_KEY, {})
    cidrs = entry.get("objectValue") or json.loads(entry.get("value") or "[]")
    return cast(Sequence[str], cidrs)


def find_own_address() -> IPv4Address | None:
    """Returns the public IPv4 address of this machine, as AWS sees it. Takes at most 5 s."""
    # components/operator_access.py has the same function: the two folders share only cluster/, which is without I/O.
    # SSH does not use the proxy of HTTPS, so its address would be another.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(_CHECK_IP, timeout=5) as answer:
            return IPv4Address(answer.read(64).decode().strip())
    except (OSError, ValueError, HTTPException):
        return None
