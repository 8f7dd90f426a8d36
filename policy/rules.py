"""The policy rules: pure functions that find violations in a stack's resources.

An unknown value is no violation in a preview: `pulumi up` checks it again once it is known. A secret stays hidden in
`pulumi up` too, so a rule that needs to see a value refuses a secret.
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
from typing import Any, TypeAlias, cast

from cluster.port_table import SecurityGroup, Source, ingress_rules
from policy.ingress import SECURITY_GROUP_TYPES, IngressRule, read_ingress_rules
from policy.resource import SECRET, UNKNOWN, Resource, as_list, get_member, walk_leaves

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Violation:
    rule: str
    resource: str
    """Name of the resource; empty if the violation concerns the whole stack."""
    message: str
    """What is wrong, and the remedy."""


Config: TypeAlias = Mapping[str, Any]
Findings: TypeAlias = Iterator[tuple[Resource | None, str]]
"""Resource and message of each violation; None for the whole stack."""


@dataclass(frozen=True)
class Rule:
    description: str
    check: Callable[[Sequence[Resource], Config], Findings]
    """Finds violations, given resources and the rule's configuration."""
    whole_stack: bool = False
    """True if the rule needs all resources at once; false if it checks each on its own."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """JSON schema of each configuration property."""


def find_violations(resources: Sequence[Resource], config: Config) -> list[Violation]:
    """Returns the violations of every rule. `config` is the result of `read_config`."""
    return [
        Violation(name, resource.name if resource else "", message)
        for name, rule in RULES.items()
        for resource, message in rule.check(resources, config.get(name, {}))
    ]


def read_config(stack: str) -> dict[str, Any]:
    """Returns each rule's configuration: `config.json`, overridden per property by `<stack>.json` if it exists."""
    config: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    stack_file = FOLDER / f"{stack}.json"
    if stack_file.exists():
        for rule, properties in json.loads(stack_file.read_text()).items():
            config[rule] = {**config.get(rule, {}), **properties}
    return config


def _describe(value: Any) -> str:
    return "not set" if value is None else str(value)


# Ingress rules


def _check_admin_ports(resources: Sequence[Resource], config: Config) -> Findings:
    # Not 4444: haproxy.cfg serves the web panel to adminCidrs alone, and redirects everybody else's links.
    admin_ports = {22: "SSH", 6080: "HAProxy's statistics"}
    for rule in read_ingress_rules(resources):
        services = [service for port, service in admin_ports.items() if rule.opens(port)]
        for cidr in rule.cidrs:
            if services and _is_too_wide(cidr):
                yield (
                    rule.resource,
                    f"opens {rule} ({', '.join(services)}) to {cidr}; list the administrators' networks in "
                    "ant-media-cluster:adminCidrs, none wider than /8",
                )


def _is_too_wide(cidr: str) -> bool:
    """Returns whether a network is wider than /8 (IPv6: /16): two networks of /1 are the whole internet.

    A value that is no network, such as a secret, counts as too wide.
    """
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


def _check_public_database(resources: Sequence[Resource], config: Config) -> Findings:
    for rule in read_ingress_rules(resources):
        databases = dict.fromkeys(name for port, name in _DATABASE_PORTS.items() if rule.opens(port))
        if databases and rule.cidrs:
            yield (
                rule.resource,
                f"opens {rule} ({', '.join(databases)}) to {', '.join(rule.cidrs)}; "
                "allow a security group instead of addresses",
            )
    for resource in resources:
        if resource.inputs.get("publiclyAccessible") in (True, SECRET):
            yield (
                resource,
                f"publiclyAccessible is {resource.inputs['publiclyAccessible']}; set it to false",
            )


_ADDRESS_SOURCES = (Source.WORLD, Source.PUBLISHERS, Source.ADMINS, Source.MONITORS)
_TABLE = "cluster/port_table.py"


def _check_port_table(resources: Sequence[Resource], config: Config) -> Findings:
    # The resource names that components/security_groups.py gives to the groups.
    groups = {f"firewall-{group}": group for group in SecurityGroup}
    for resource in resources:
        if resource.type in SECURITY_GROUP_TYPES and resource.name not in groups:
            yield resource, f"is a security group that {_TABLE} does not list; add it there"
    for rule in read_ingress_rules(resources):
        group = rule.security_group or "its security group"
        # The port of RTMPS is a setting, so every port of its group is listed.
        rtmps_port = rule.from_port if groups.get(group) == SecurityGroup.RTMP else 0
        entries = [
            entry
            for entry in ingress_rules(rtmps_port, srt=True, database=True, monitoring=True)
            if (entry.protocol, entry.from_port, entry.to_port)
            == (rule.protocol, rule.from_port, rule.to_port)
            # While the security group is unknown, an entry of any group matches.
            and (not rule.security_group or entry.security_group == groups.get(rule.security_group))
        ]
        if rule.security_group and rule.security_group not in groups:
            yield (
                rule.resource,
                f"opens {rule} on {group}, a security group that {_TABLE} does not list; add it there",
            )
        elif not entries:
            yield rule.resource, f"opens {rule} on {group}, which {_TABLE} does not list; add it there"
        elif not any(_source_matches(rule, entry.source) for entry in entries):
            allowed = ", ".join(dict.fromkeys(entry.source for entry in entries))
            sources = ", ".join((*rule.cidrs, *rule.source_groups)) or "no source"
            yield rule.resource, f"opens {rule} on {group} to {sources}; {_TABLE} allows only {allowed}"


def _source_matches(rule: IngressRule, source: Source) -> bool:
    if source in _ADDRESS_SOURCES:
        return not rule.source_groups and (rule.has_unknown_source or bool(rule.cidrs))
    return (
        not rule.cidrs
        and (rule.has_unknown_source or bool(rule.source_groups))
        and {*rule.source_groups} <= {f"firewall-{source}"}
    )


# Machines

_INSTANCE_RESOURCES = (
    "aws:ec2/instance:Instance",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
)
_LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
_VOLUME = "aws:ebs/volume:Volume"


def _check_imdsv2(resources: Sequence[Resource], config: Config) -> Findings:
    for resource in resources:
        if resource.type in (*_INSTANCE_RESOURCES, _LAUNCH_TEMPLATE):
            tokens = get_member(resource.inputs.get("metadataOptions"), "httpTokens")
            if tokens not in ("required", UNKNOWN):
                yield resource, f"metadataOptions.httpTokens is {_describe(tokens)}; set it to required"


def _check_encrypted_volumes(resources: Sequence[Resource], config: Config) -> Findings:
    for resource in resources:
        for path, encrypted in _read_volumes(resource):
            if encrypted not in (True, "true", UNKNOWN):
                yield resource, f"{path}.encrypted is {_describe(encrypted)}; set it to true"


def _read_volumes(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Yields the path of each volume and its `encrypted` input, None if not set. Every instance has a root volume."""
    inputs = resource.inputs
    if resource.type == _VOLUME:
        yield "the volume", inputs.get("encrypted")
    elif resource.type in _INSTANCE_RESOURCES:
        yield "rootBlockDevice", get_member(inputs.get("rootBlockDevice"), "encrypted")
        for index, device in enumerate(as_list(inputs.get("ebsBlockDevices"))):
            yield f"ebsBlockDevices[{index}]", get_member(device, "encrypted")
    elif resource.type == _LAUNCH_TEMPLATE:
        for index, device in enumerate(as_list(inputs.get("blockDeviceMappings")) or [None]):
            yield f"blockDeviceMappings[{index}].ebs", get_member(get_member(device, "ebs"), "encrypted")


def _check_instance_types(resources: Sequence[Resource], config: Config) -> Findings:
    allowed = [str(pattern) for pattern in config.get("allowed", [])]
    for resource in resources:
        instance_type = resource.inputs.get("instanceType")
        if resource.type not in (*_INSTANCE_RESOURCES, _LAUNCH_TEMPLATE) or instance_type in (None, UNKNOWN):
            continue
        if not any(fnmatchcase(str(instance_type), pattern) for pattern in allowed):
            yield (
                resource,
                f"instanceType is {instance_type}; use one of {', '.join(allowed)}, or allow it in policy/config.json",
            )


# Buckets

_BUCKETS = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")
_PUBLIC_ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def _check_private_buckets(resources: Sequence[Resource], config: Config) -> Findings:
    # S3 itself encrypts every object.
    blocks = [resource for resource in resources if resource.type == _PUBLIC_ACCESS_BLOCK]
    for block in blocks:
        for name in _BLOCKS:
            if block.inputs.get(name) not in (True, UNKNOWN):
                yield block, f"{name} is {_describe(block.inputs.get(name))}; set it to true"
    for bucket in resources:
        if bucket.type in _BUCKETS and not any(
            bucket.name in block.dependencies.get("bucket", ())
            or block.inputs.get("bucket") == bucket.inputs.get("bucket")
            for block in blocks
        ):
            yield (
                bucket,
                "has no BucketPublicAccessBlock; add one, so that no policy or ACL makes recordings public",
            )


# Commands

# When a command fails, the provider prints these inputs in plain text, even if they are secrets.
_PRINTED_INPUTS = ("create", "update", "delete", "environment")
# Endings of names that hold no secret: --password-file, --secret-id.
_HARMLESS_SUFFIX = r"[\w-]{0,40}(?:file|path|dir|arn|id|name|seconds|ttl|length)(?![\w-])"
# The length is limited: an unlimited match takes minutes on a long line.
_SECRET_NAME = (
    r"(?:password|passwd|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key)"
    rf"(?!{_HARMLESS_SUFFIX})[\w-]{{0,40}}"
)
# First character of a literal value. Shell expansions and template expressions are no literals.
_LITERAL = r"[^\s\"'`$<({\[%\\-]"
_KEY_PATTERNS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
}
_SECRET_PATTERNS = {
    **_KEY_PATTERNS,
    "a password in a URL": rf"(?i)[a-z0-9+.-]://[^\s/:@'\"]{{0,100}}:{_LITERAL}[^\s/@'\"]{{0,1000}}@",
    "a password": rf"(?i)(?:{_SECRET_NAME}(?:=|[\"']?: )|(?:^|\s)--[\w-]{{0,40}}{_SECRET_NAME}\s+)[\"']?{_LITERAL}[^\s\"']{{3}}",
    # At least 16 characters: shorter ones are user names.
    "a token in a URL": r"(?i)\bhttps?://[\w.~-]{16,1000}@",
    "a password for curl": (
        rf"\bcurl\b[^|;&]{{0,1000}}?\s(?:-[a-zA-Z]{{0,9}}u|--user)[\s=]?[\"']?[^\s:\"']{{1,100}}:(?!//){_LITERAL}"
    ),
    "a password for HTTP": (
        rf"(?i)\bauthorization[\"']?[:=]\s?[\"']?(?:bearer|basic|token)\s{_LITERAL}[^\s\"']{{3}}"
    ),
}
_COMMENT = r"(?m)^\s*#\s.*$"


def _check_command_secrets(resources: Sequence[Resource], config: Config) -> Findings:
    for resource in resources:
        if resource.type in (*_INSTANCE_RESOURCES, _LAUNCH_TEMPLATE):
            yield from _check_user_data(resource)
        if not resource.type.startswith("command:"):
            continue
        for key, value in resource.inputs.items():
            for path, text in walk_leaves(key, value):
                assignment = f"{path.rpartition('.')[2]}={re.sub(_COMMENT, '', text)}"
                secrets = _find_secrets(_KEY_PATTERNS, text) or _find_secrets(_SECRET_PATTERNS, assignment)
                if SECRET in text and key in _PRINTED_INPUTS:
                    secrets = ["a secret, which an error message would print"]
                remedy = "mark it as secret" if key == "connection" else "pass it on stdin, as a secret"
                for secret in secrets:
                    yield resource, f"{path} contains {secret}; {remedy}"


def _check_user_data(resource: Resource) -> Findings:
    for key in ("userData", "userDataBase64"):
        text = str(resource.inputs.get(key, ""))
        with suppress(ValueError):  # user data in plain text
            text = base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
        for secret in _find_secrets(_KEY_PATTERNS, text):
            yield (
                resource,
                f"{key} contains {secret}; let the machine fetch it with its role, or mark it as secret",
            )


def _find_secrets(patterns: Mapping[str, str], text: str) -> list[str]:
    """Returns the kinds of secret that a text contains."""
    return [kind for kind, pattern in patterns.items() if re.search(pattern, text)]


# Tags

_UNTAGGABLE_TYPES = (
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/securityGroupRule:SecurityGroupRule",
    "aws:ec2/volumeAttachment:VolumeAttachment",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:iam/accessKey:AccessKey",
    "aws:iam/userPolicy:UserPolicy",
    "aws:route53/record:Record",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    "aws:secretsmanager/secretVersion:SecretVersion",
)


def is_taggable(type: str) -> bool:
    """Returns whether AWS can tag a type of resource. A type that is not listed above counts as taggable."""
    return type.startswith("aws:") and type not in _UNTAGGABLE_TYPES


def _check_tags(resources: Sequence[Resource], config: Config) -> Findings:
    for resource in resources:
        if not is_taggable(resource.type):
            continue
        # The provider's default tags reach every taggable resource in AWS. Which of a resource's inputs show them
        # depends on the provider's version and on the resource: `tags` (v6), `tagsAll` (v7), or none (security group rules).
        sources = (
            _read_default_tags(resource.provider),
            resource.inputs.get("tagsAll"),
            resource.inputs.get("tags"),
        )
        tags: dict[str, Any] = {}
        for source in sources:
            if isinstance(source, Mapping):
                tags |= cast(Mapping[str, Any], source)
        missing = [tag for tag in config.get("required", []) if not tags.get(tag)]
        if missing and UNKNOWN not in sources:
            yield (
                resource,
                f"has no tag {', '.join(missing)}; set aws:defaultTags in the stack's configuration",
            )


def _read_default_tags(provider: Mapping[str, Any]) -> Any:
    """Returns the default tags of a provider: an object, `UNKNOWN`, or None if it has none that the rules can see."""
    default_tags = provider.get("defaultTags")
    if isinstance(default_tags, str) and default_tags not in (UNKNOWN, SECRET):
        default_tags = json.loads(default_tags)
    return get_member(default_tags, "tags")


# Protection


def _check_protected_resources(resources: Sequence[Resource], config: Config) -> Findings:
    required: Mapping[str, str] = config.get("resources", {})
    for name, resource_type in required.items():
        resource = next(
            (resource for resource in resources if (resource.type, resource.name) == (resource_type, name)),
            None,
        )
        if resource is None:
            yield (
                None,
                f"{name} ({resource_type}) must exist, but is missing; restore it, or remove it from this stack's file in policy/",
            )
        elif not resource.protect:
            yield resource, "must be protected, but is not; set ant-media-cluster:protect to true"


_STRING_LIST = {"type": "array", "items": {"type": "string"}}

RULES: Mapping[str, Rule] = {
    "admin-ports": Rule("SSH and the statistics are not open to the internet.", _check_admin_ports),
    "public-database": Rule(
        "Databases accept connections from security groups only.", _check_public_database
    ),
    "port-table": Rule(f"Every open port is listed in {_TABLE}.", _check_port_table, whole_stack=True),
    "imdsv2": Rule("Machines require IMDSv2.", _check_imdsv2),
    "encrypted-volumes": Rule("Volumes are encrypted.", _check_encrypted_volumes),
    "private-buckets": Rule("Buckets block public access.", _check_private_buckets, whole_stack=True),
    "instance-types": Rule(
        "Machines use allowed instance types.", _check_instance_types, options={"allowed": _STRING_LIST}
    ),
    "command-secrets": Rule(
        "Commands and user data contain no secret in plain text.", _check_command_secrets
    ),
    "tags": Rule("Every resource has the required tags.", _check_tags, options={"required": _STRING_LIST}),
    "protected-resources": Rule(
        "Required resources exist and are protected.",
        _check_protected_resources,
        whole_stack=True,
        options={"resources": {"type": "object", "additionalProperties": {"type": "string"}}},
    ),
}
"""The rules by name, in the order of a report."""
