"""What no environment may ever do, as pure functions on a stack's resources.

A value that only the update will tell is no violation in a preview: the same rules look again in `pulumi up`,
where it is known before the resource is made. A secret, though, stays hidden in both; where a rule has to see a value,
one that is secret is refused.
"""

import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias, cast

FOLDER = Path(__file__).parent
UNKNOWN, SECRET = "[unknown]", "[secret]"
"""What stands in a resource's inputs for a value that cannot be seen."""


@dataclass(frozen=True)
class Resource:
    """A resource as it will be after the update."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    """As checked by the provider, `UNKNOWN` and `SECRET` at any depth."""
    protect: bool = False
    depends: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Which resources (names) an input comes from: the engine's `propertyDependencies`. With it a rule knows the security
    group that a port is opened on before the group has an id."""


@dataclass(frozen=True)
class Violation:
    rule: str
    resource: str
    """Its name; empty where there is none."""
    what: str
    """What is wrong, and what would do."""


Found: TypeAlias = Iterator[tuple[Resource | None, str]]


@dataclass(frozen=True)
class Rule:
    description: str
    check: Callable[[Sequence[Resource], Mapping[str, Any]], Found]
    """Of resources and the rule's own configuration."""
    whole_stack: bool = False
    """Whether it has to see all resources at once, or judges each by itself, before it is made."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """JSON schema of each property of its configuration."""


def violations(resources: Sequence[Resource], config: Mapping[str, Any]) -> list[Violation]:
    """Everything that is wrong with a stack; `config` as `read_config` returns it."""
    return [
        Violation(name, resource.name if resource else "", what)
        for name, rule in RULES.items()
        for resource, what in rule.check(resources, config.get(name, {}))
    ]


def read_config(stack: str) -> dict[str, Any]:
    """By rule: `config.json`, and over it property by property what `<stack>.json` says, where there is one."""
    config: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    own = FOLDER / f"{stack}.json"
    if own.exists():
        for rule, properties in json.loads(own.read_text()).items():
            config[rule] = {**config.get(rule, {}), **properties}
    return config


# Ways in

INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
GROUPS = ("aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")


@dataclass(frozen=True)
class _Way:
    """One way in, however it was written down."""

    resource: Resource
    protocol: str
    from_port: int
    to_port: int
    cidrs: tuple[str, ...]

    def opens(self, port: int) -> bool:
        """To TCP."""
        return self.protocol in ("tcp", "all") and self.from_port <= port <= self.to_port


def _ways(resource: Resource) -> Iterator[_Way]:
    inputs = resource.inputs
    if resource.type == INGRESS_RULE:
        yield _way(
            resource, inputs, inputs.get("ipProtocol"), [inputs.get("cidrIpv4"), inputs.get("cidrIpv6")]
        )
    elif resource.type == OLD_RULE and inputs.get("type") != "egress":
        yield _block(resource, inputs)
    elif resource.type in GROUPS:
        for block in _items(inputs.get("ingress")):
            yield _block(resource, block)


def _block(resource: Resource, block: Mapping[str, Any]) -> _Way:
    cidrs = [*_texts(block.get("cidrBlocks")), *_texts(block.get("ipv6CidrBlocks"))]
    return _way(resource, block, block.get("protocol"), cidrs)


_PROTOCOLS = {"-1": "all", "6": "tcp", "17": "udp"}


def _way(resource: Resource, ports: Mapping[str, Any], protocol: Any, cidrs: Iterable[Any]) -> _Way:
    protocol = str(protocol).lower().removesuffix(".0")
    protocol = _PROTOCOLS.get(protocol, protocol)
    from_port, to_port = _number(ports.get("fromPort")), _number(ports.get("toPort"))
    # Without ports, and for all protocols whatever is said of ports, it is every port. So it is where a port cannot be
    # seen: better to be asked than to let the world in.
    everything = protocol == "all" or from_port is None or to_port is None or -1 in (from_port, to_port)
    return _Way(
        resource,
        protocol,
        0 if everything or from_port is None else from_port,
        65535 if everything or to_port is None else to_port,
        tuple(cidr for cidr in cidrs if isinstance(cidr, str) and cidr not in ("", UNKNOWN)),
    )


def _ports(way: _Way) -> str:
    ports = f"{way.from_port}" if way.from_port == way.to_port else f"{way.from_port}-{way.to_port}"
    return f"{ports}/{way.protocol}"


# Reading


def _number(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return None


def _items(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list, or in one that is not a list where Pulumi knows that there is but one."""
    values = cast(list[Any], value) if isinstance(value, list) else [value]
    return [cast(Mapping[str, Any], item) for item in values if isinstance(item, Mapping)]


def _texts(value: Any) -> list[str]:
    return (
        [item for item in cast(list[Any], value) if isinstance(item, str)] if isinstance(value, list) else []
    )


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in cast(Mapping[str, Any], value).values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _leaves(item)
    elif value is not None:
        yield str(value)


# The rules

_ADMIN_PORTS = {22: "SSH", 4444: "the web panel", 6080: "HAProxy's statistics"}


def _admin_ports(resources: Sequence[Resource], config: Mapping[str, Any]) -> Found:
    for way in (way for resource in resources for way in _ways(resource)):
        opened = [name for port, name in _ADMIN_PORTS.items() if way.opens(port)]
        for cidr in way.cidrs:
            if opened and _is_world(cidr):
                yield (
                    way.resource,
                    f"opens {_ports(way)} ({', '.join(opened)}) to {cidr}; name the administrators' networks in "
                    "ant-media-cluster:adminCidrs",
                )


def _is_world(cidr: str) -> bool:
    """No administrators' network is this wide, and two /1 are the world. One that cannot be read might be."""
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return True
    return network.prefixlen < (8 if network.version == 4 else 16)


_INSTANCES = (
    "aws:ec2/instance:Instance",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
)


def _imdsv2(resources: Sequence[Resource], config: Mapping[str, Any]) -> Found:
    for resource in resources:
        if resource.type in _INSTANCES:
            options = resource.inputs.get("metadataOptions")
            tokens = [item.get("httpTokens") for item in _items(options)] or [options]
            if tokens[0] not in ("required", UNKNOWN):
                yield (
                    resource,
                    f"metadataOptions.httpTokens is {_shown(tokens[0])}; set it to required (IMDSv2 only)",
                )


def _instance_types(resources: Sequence[Resource], config: Mapping[str, Any]) -> Found:
    allowed = [str(pattern) for pattern in config.get("allowed", [])]
    for resource in resources:
        type = resource.inputs.get("instanceType")
        if resource.type not in _INSTANCES or type in (None, UNKNOWN):
            continue
        if not any(fnmatchcase(str(type), pattern) for pattern in allowed):
            yield (
                resource,
                f"instanceType is {_shown(type)}; take one of {', '.join(allowed)}, or allow it in policy/config.json",
            )


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


RULES: Mapping[str, Rule] = {
    "admin-ports": Rule("SSH, the web panel and the statistics are never open to the world.", _admin_ports),
    "imdsv2": Rule("Instances give their credentials by IMDSv2 only.", _imdsv2),
    "instance-types": Rule(
        "Instances are of types that are allowed.",
        _instance_types,
        options={"allowed": {"type": "array", "items": {"type": "string"}}},
    ),
}
