"""What no environment may ever do, as pure functions on a stack's resources.

A value that only the update will tell is no violation in a preview: the policy pack looks again in `pulumi up`, where it is
known before the resource is made. A secret stays hidden there too, so where a rule has to see a value a secret is refused.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias, cast

from components.port_table import SecurityGroup, Source
from components.port_table import rules as port_table

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
    """Names of the resources that an input comes from: the engine's `propertyDependencies`. They tell the security group
    of a rule before the group has an id, and whose id it is afterwards."""


@dataclass(frozen=True)
class Violation:
    rule: str
    resource: str
    """Its name; empty where there is none."""
    what: str
    """What is wrong, and what would do."""


Config: TypeAlias = Mapping[str, Any]
Found: TypeAlias = Iterator[tuple[Resource | None, str]]


@dataclass(frozen=True)
class Rule:
    description: str
    check: Callable[[Sequence[Resource], Config], Found]
    """Of resources and the rule's own configuration."""
    whole_stack: bool = False
    """Whether it has to see all resources at once, or judges each by itself."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """JSON schema of each property of its configuration."""


def violations(resources: Sequence[Resource], config: Config) -> list[Violation]:
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


# Reading


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [] if value is None else [value]


def _member(value: Any, key: str) -> Any:
    """Of an object; of one that cannot be seen, that."""
    return cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else value


def _texts(value: Any) -> tuple[str, ...]:
    """What is known of a text or of a list of them."""
    return tuple(item for item in _list(value) if isinstance(item, str) and item not in ("", UNKNOWN))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in cast(Mapping[str, Any], value).items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            yield from _leaves(f"{path}[{index}]", item)
    elif value is not None:
        yield path, str(value)


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


# Ways in

INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
GROUPS = ("aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
_PROTOCOLS = {"-1": "all", "6": "tcp", "17": "udp"}
_LAST_PORT = 65535


@dataclass(frozen=True)
class _Way:
    """One way in, in whichever of AWS's notations."""

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


def _ways(resources: Iterable[Resource]) -> Iterator[_Way]:
    for resource in resources:
        inputs = resource.inputs
        if resource.type == INGRESS_RULE:
            yield from _way(resource, inputs, inputs.get("ipProtocol"))
        elif resource.type == OLD_RULE and inputs.get("type") != "egress":
            yield from _way(resource, inputs, inputs.get("protocol"))
        elif resource.type in GROUPS:
            for block in _list(inputs.get("ingress")):
                yield from _way(resource, block, _member(block, "protocol"))


_NETWORKS = ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks")
_OTHERS = (
    "referencedSecurityGroupId",
    "sourceSecurityGroupId",
    "securityGroups",
    "prefixListId",
    "prefixListIds",
)


def _way(resource: Resource, end: Any, protocol: Any) -> Iterator[_Way]:
    """`end`: what says of it who may come in and where to, the resource's inputs or a part of them."""
    ports = [_member(end, "fromPort"), _member(end, "toPort")]
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
        else _named(resource, "securityGroupId", _member(end, "securityGroupId"))
    )
    groups = [group for key in _OTHERS for group in _named(resource, key, _member(end, key))]
    yield _Way(
        resource=resource,
        protocol=protocol,
        from_port=int(ports[0]),
        to_port=int(ports[1]),
        cidrs=tuple(dict.fromkeys(cidr for key in _NETWORKS for cidr in _texts(_member(end, key)))),
        groups=tuple([*groups, *into] if _member(end, "self") is True else groups),
        into=next(iter(into), ""),
        hidden=any(
            text == UNKNOWN for key in (*_NETWORKS, *_OTHERS) for _, text in _leaves(key, _member(end, key))
        ),
    )


def _named(resource: Resource, key: str, value: Any) -> Sequence[str]:
    """The names behind ids, or the ids where they are none of this stack's."""
    return resource.depends.get(key) or _texts(value)


def _admin_ports(resources: Sequence[Resource], config: Config) -> Found:
    ports = {22: "SSH", 4444: "the web panel", 6080: "HAProxy's statistics"}
    for way in _ways(resources):
        opened = [name for port, name in ports.items() if way.opens(port)]
        for cidr in way.cidrs:
            if opened and _is_world(cidr):
                yield (
                    way.resource,
                    f"opens {way} ({', '.join(opened)}) to {cidr}; name the networks of administrators in "
                    "ant-media-cluster:adminCidrs, none wider than /8",
                )


def _is_world(cidr: str) -> bool:
    """No administrators' network is wider, and two /1 are the world. What cannot be read might be it."""
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return True
    return network.prefixlen < (8 if network.version == 4 else 16)


_DATABASE_PORTS = {
    1433: "SQL Server",
    1521: "Oracle",
    3306: "MySQL",
    5432: "PostgreSQL",
    5439: "Redshift",
    6379: "Redis and Valkey",
    6380: "Redis over TLS",
    8182: "Neptune",
    9042: "Cassandra",
    9200: "Elasticsearch",
    11211: "memcached",
    26379: "Redis Sentinel",
    27017: "MongoDB",
    27018: "MongoDB",
    27019: "MongoDB",
}


def _public_database(resources: Sequence[Resource], config: Config) -> Found:
    for way in _ways(resources):
        opened = dict.fromkeys(name for port, name in _DATABASE_PORTS.items() if way.opens(port))
        if opened and way.cidrs:
            yield (
                way.resource,
                f"opens {way} ({', '.join(opened)}) to {', '.join(way.cidrs)}; let in a security group, not addresses",
            )
    for resource in resources:
        if resource.inputs.get("publiclyAccessible") in (True, SECRET):
            yield (
                resource,
                f"publiclyAccessible is {resource.inputs['publiclyAccessible']}; set it to false",
            )


_BY_ADDRESS = (Source.WORLD, Source.PUBLISHERS, Source.ADMINS)
_TABLE = "components/port_table.py"


def _port_table(resources: Sequence[Resource], config: Config) -> Found:
    # As __main__.py and components/security_groups.py name them.
    groups = {f"firewall-{group}": group for group in SecurityGroup}
    for resource in resources:
        if resource.type in GROUPS and resource.name not in groups:
            yield resource, f"is a security group that {_TABLE} does not have; add it there"
    for way in _ways(resources):
        lines = [
            line
            for line in port_table(srt=True, database=True)
            if (line.protocol, line.from_port, line.to_port) == (way.protocol, way.from_port, way.to_port)
            # Where it is not known which group it is, this much is certain: that some group has the port.
            and (not way.into or line.security_group == groups.get(way.into))
        ]
        if way.into and way.into not in groups:
            yield (
                way.resource,
                f"opens {way} on {way.into}, a security group that {_TABLE} does not have; add it there",
            )
        elif not lines:
            yield way.resource, f"opens {way} on {_group(way.into)}, which {_TABLE} does not; add it there"
        elif not any(_may_come(way, line.source) for line in lines):
            sources = ", ".join(dict.fromkeys(line.source for line in lines))
            came = ", ".join((*way.cidrs, *way.groups)) or "nobody"
            yield way.resource, f"opens {way} on {_group(way.into)} to {came}; {_TABLE} has it for {sources}"


def _group(name: str) -> str:
    return name or "its security group"


def _may_come(way: _Way, source: Source) -> bool:
    if source in _BY_ADDRESS:
        return not way.groups and (way.hidden or bool(way.cidrs))
    return not way.cidrs and (way.hidden or bool(way.groups)) and {*way.groups} <= {f"firewall-{source}"}


# Machines

_INSTANCES = (
    "aws:ec2/instance:Instance",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
)
_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
_VOLUME = "aws:ebs/volume:Volume"


def _imdsv2(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        if resource.type in (*_INSTANCES, _TEMPLATE):
            tokens = _member(resource.inputs.get("metadataOptions"), "httpTokens")
            if tokens not in ("required", UNKNOWN):
                yield resource, f"metadataOptions.httpTokens is {_shown(tokens)}; set it to required"


def _encrypted_volumes(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        for where, encrypted in _volumes(resource):
            if encrypted not in (True, "true", UNKNOWN):
                yield resource, f"{where}.encrypted is {_shown(encrypted)}; set it to true"


def _volumes(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Each volume, and what is said of its encryption; one that is not mentioned is the image's, as it comes."""
    inputs = resource.inputs
    if resource.type == _VOLUME:
        yield "the volume", inputs.get("encrypted")
    elif resource.type in _INSTANCES:
        yield "rootBlockDevice", _member(inputs.get("rootBlockDevice"), "encrypted")
        for index, device in enumerate(_list(inputs.get("ebsBlockDevices"))):
            yield f"ebsBlockDevices[{index}]", _member(device, "encrypted")
    elif resource.type == _TEMPLATE:
        for index, device in enumerate(_list(inputs.get("blockDeviceMappings")) or [None]):
            yield f"blockDeviceMappings[{index}].ebs", _member(_member(device, "ebs"), "encrypted")


def _instance_types(resources: Sequence[Resource], config: Config) -> Found:
    allowed = [str(pattern) for pattern in config.get("allowed", [])]
    for resource in resources:
        kind = resource.inputs.get("instanceType")
        if resource.type not in (*_INSTANCES, _TEMPLATE) or kind in (None, UNKNOWN):
            continue
        if not any(fnmatchcase(str(kind), pattern) for pattern in allowed):
            yield (
                resource,
                f"instanceType is {kind}; take one of {', '.join(allowed)}, or allow it in policy/config.json",
            )


# Commands

_COMMANDS = ("command:remote:Command", "command:local:Command")
# On a failure the provider prints them as they are, secret or not.
_PRINTED = ("create", "update", "delete", "environment")
_NAME = r"[\w-]*(?:password|passwd|passphrase|secret|token|api[-_]?key|access[-_]?key)[\w-]*"
# How a value begins that is neither empty nor what a shell or a template puts in.
_LITERAL = r"[^\s\"'`$<({\[%\\-]"
_SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a password in a URL": rf"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:{_LITERAL}[^\s/@'\"]*@",
    "a password": rf"(?i)(?:\b{_NAME}(?:=|[\"']?: )|(?:^|\s)--{_NAME}\s+)[\"']?{_LITERAL}[^\s\"']{{3}}",
}


def _command_secrets(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        if resource.type not in _COMMANDS:
            continue
        for key in (*_PRINTED, "stdin"):
            for path, text in _leaves(key, resource.inputs.get(key)):
                found = [name for name, pattern in _SECRETS.items() if re.search(pattern, text)]
                if SECRET in text and key in _PRINTED:
                    found = ["a secret, which an error would print"]
                for what in found:
                    yield resource, f"{path} holds {what}; give it on stdin, as a secret"


# Tags

_UNTAGGABLE = (
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/securityGroupRule:SecurityGroupRule",
    "aws:ec2/volumeAttachment:VolumeAttachment",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:route53/record:Record",
    "aws:secretsmanager/secretVersion:SecretVersion",
)


def is_taggable(type: str) -> bool:
    """What is new to the program is, until it is listed as one that AWS cannot tag."""
    return type.startswith("aws:") and type not in _UNTAGGABLE


def _tags(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        # The provider puts its default tags into the checked inputs, into `tagsAll` before its version 6.
        given = [resource.inputs.get("tags"), resource.inputs.get("tagsAll")]
        if not is_taggable(resource.type) or UNKNOWN in given:
            continue
        missing = [tag for tag in config.get("required", []) if not any(_member(part, tag) for part in given)]
        if missing:
            yield resource, f"has no tag {', '.join(missing)}; set aws:defaultTags in the stack's settings"


# Protection


def _protected(resources: Sequence[Resource], config: Config) -> Found:
    kept: Mapping[str, str] = config.get("resources", {})
    for name, kind in kept.items():
        found = next(
            (resource for resource in resources if (resource.type, resource.name) == (kind, name)), None
        )
        if found is None:
            yield (
                None,
                f"{name} ({kind}) is to stay, and would not be there; keep it, or take it out of this stack's file in policy/",
            )
        elif not found.protect:
            yield found, "is to stay, and is not protected; set ant-media-cluster:protect to true"


_LIST_OF_TEXTS = {"type": "array", "items": {"type": "string"}}

RULES: Mapping[str, Rule] = {
    "admin-ports": Rule("SSH, the web panel and the statistics are never open to the world.", _admin_ports),
    "public-database": Rule("Databases are open to security groups only.", _public_database),
    "port-table": Rule(f"No port is open but those of {_TABLE}.", _port_table, whole_stack=True),
    "imdsv2": Rule("Machines hand out their credentials by IMDSv2 only.", _imdsv2),
    "encrypted-volumes": Rule("Volumes are encrypted.", _encrypted_volumes),
    "instance-types": Rule(
        "Machines are of allowed types.", _instance_types, options={"allowed": _LIST_OF_TEXTS}
    ),
    "command-secrets": Rule("No secret is in the text of a command.", _command_secrets),
    "tags": Rule("Everything is tagged.", _tags, options={"required": _LIST_OF_TEXTS}),
    "protected-resources": Rule(
        "What is to stay is there, and protected.",
        _protected,
        whole_stack=True,
        options={"resources": {"type": "object", "additionalProperties": {"type": "string"}}},
    ),
}
"""By name. In the order of a report."""
