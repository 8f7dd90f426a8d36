"""What no environment may ever do, as pure functions on a stack's resources.

A value that only the update will tell is no violation in a preview: the policy pack looks again in `pulumi up`, where it is
known. A secret stays hidden there too, so where a rule has to see a value a secret is refused.
"""

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

from cluster.port_table import SecurityGroup, Source
from cluster.port_table import rules as port_table
from policy.resource import SECRET, UNKNOWN, Resource, as_list, leaves, member
from policy.ingress import GROUPS, Way, ways

FOLDER = Path(__file__).parent


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


# Ways in


def _admin_ports(resources: Sequence[Resource], config: Config) -> Found:
    ports = {22: "SSH", 4444: "the web panel", 6080: "HAProxy's statistics"}
    for way in ways(resources):
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
    for way in ways(resources):
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
_TABLE = "cluster/port_table.py"


def _port_table(resources: Sequence[Resource], config: Config) -> Found:
    # As __main__.py and components/security_groups.py name them.
    groups = {f"firewall-{group}": group for group in SecurityGroup}
    for resource in resources:
        if resource.type in GROUPS and resource.name not in groups:
            yield resource, f"is a security group that {_TABLE} does not have; add it there"
    for way in ways(resources):
        into = way.into or "its security group"
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
                f"opens {way} on {into}, a security group that {_TABLE} does not have; add it there",
            )
        elif not lines:
            yield way.resource, f"opens {way} on {into}, which {_TABLE} does not; add it there"
        elif not any(_may_come(way, line.source) for line in lines):
            sources = ", ".join(dict.fromkeys(line.source for line in lines))
            came = ", ".join((*way.cidrs, *way.groups)) or "nobody"
            yield way.resource, f"opens {way} on {into} to {came}; {_TABLE} has it for {sources}"


def _may_come(way: Way, source: Source) -> bool:
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
            tokens = member(resource.inputs.get("metadataOptions"), "httpTokens")
            if tokens not in ("required", UNKNOWN):
                yield resource, f"metadataOptions.httpTokens is {_shown(tokens)}; set it to required"


def _encrypted_volumes(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        for where, encrypted in _volumes(resource):
            if encrypted not in (True, "true", UNKNOWN):
                yield resource, f"{where}.encrypted is {_shown(encrypted)}; set it to true"


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _volumes(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Each volume, and what is said of its encryption; one that is not mentioned is the image's, as it comes."""
    inputs = resource.inputs
    if resource.type == _VOLUME:
        yield "the volume", inputs.get("encrypted")
    elif resource.type in _INSTANCES:
        yield "rootBlockDevice", member(inputs.get("rootBlockDevice"), "encrypted")
        for index, device in enumerate(as_list(inputs.get("ebsBlockDevices"))):
            yield f"ebsBlockDevices[{index}]", member(device, "encrypted")
    elif resource.type == _TEMPLATE:
        for index, device in enumerate(as_list(inputs.get("blockDeviceMappings")) or [None]):
            yield f"blockDeviceMappings[{index}].ebs", member(member(device, "ebs"), "encrypted")


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

# On a failure the provider prints them as they are, secret or not.
_PRINTED = ("create", "update", "delete", "environment")
# What follows such a word in the name of something that is no secret: --password-file, --secret-id.
_OF_NO_SECRET = r"[\w-]{0,40}(?:file|path|dir|arn|id|name|seconds|ttl|length)(?![\w-])"
# Names are bounded: one without an end would take minutes to look for in a long line.
_NAME = (
    r"(?:password|passwd|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key)"
    rf"(?!{_OF_NO_SECRET})[\w-]{{0,40}}"
)
# How a value begins that is neither empty nor what a shell or a template puts in.
_LITERAL = r"[^\s\"'`$<({\[%\\-]"
_KEYS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
}
_SECRETS = {
    **_KEYS,
    "a password in a URL": rf"(?i)[a-z0-9+.-]://[^\s/:@'\"]{{0,100}}:{_LITERAL}[^\s/@'\"]{{0,1000}}@",
    "a password": rf"(?i)(?:{_NAME}(?:=|[\"']?: )|(?:^|\s)--[\w-]{{0,40}}{_NAME}\s+)[\"']?{_LITERAL}[^\s\"']{{3}}",
    # As short names of users have their place there.
    "a token in a URL": r"(?i)\bhttps?://[\w.~-]{16,1000}@",
    "a password for curl": (
        rf"\bcurl\b[^|;&]{{0,1000}}?\s(?:-[a-zA-Z]{{0,9}}u|--user)[\s=]?[\"']?[^\s:\"']{{1,100}}:(?!//){_LITERAL}"
    ),
    "a password for HTTP": (
        rf"(?i)\bauthorization[\"']?[:=]\s?[\"']?(?:bearer|basic|token)\s{_LITERAL}[^\s\"']{{3}}"
    ),
}
_COMMENT = r"(?m)^\s*#\s.*$"


def _command_secrets(resources: Sequence[Resource], config: Config) -> Found:
    for resource in resources:
        if resource.type in (*_INSTANCES, _TEMPLATE):
            yield from _user_data_secrets(resource)
        if not resource.type.startswith("command:"):
            continue
        for key, value in resource.inputs.items():
            for path, text in leaves(key, value):
                said = f"{path.rpartition('.')[2]}={re.sub(_COMMENT, '', text)}"
                found = _held(_KEYS, text) or _held(_SECRETS, said)
                if SECRET in text and key in _PRINTED:
                    found = ["a secret, which an error would print"]
                for what in found:
                    would_do = "make it a secret" if key == "connection" else "give it on stdin, as a secret"
                    yield resource, f"{path} holds {what}; {would_do}"


def _user_data_secrets(resource: Resource) -> Found:
    for key in ("userData", "userDataBase64"):
        text = str(resource.inputs.get(key, ""))
        with suppress(ValueError):  # it is in clear
            text = base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
        for what in _held(_KEYS, text):
            yield resource, f"{key} holds {what}; let the machine fetch it by its role, or make it a secret"


def _held(kinds: Mapping[str, str], text: str) -> list[str]:
    return [what for what, pattern in kinds.items() if re.search(pattern, text)]


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
        missing = [tag for tag in config.get("required", []) if not any(member(part, tag) for part in given)]
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
    "command-secrets": Rule("No secret is in a command or in user data in clear.", _command_secrets),
    "tags": Rule("Everything is tagged.", _tags, options={"required": _LIST_OF_TEXTS}),
    "protected-resources": Rule(
        "What is to stay is there, and protected.",
        _protected,
        whole_stack=True,
        options={"resources": {"type": "object", "additionalProperties": {"type": "string"}}},
    ),
}
"""By name. In the order of a report."""
