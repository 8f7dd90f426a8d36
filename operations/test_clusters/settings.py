"""The settings of a test cluster: those of another stack, with its own name, network and expiry."""

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import sha256
from ipaddress import IPv4Network
from typing import Any, cast

from cluster.settings import rules
from cluster.settings.model import NAMESPACE, REQUIRED_FROM_USER
from cluster.settings.stack_checks import DEFAULT_TAGS, format_tag_path
from operations.stack_file import without_secrets

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Within the limits of cluster/settings/stack_checks.py and of a host name's label.
_LONGEST_NAME = 31
_TTL = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_SHORTEST, _LONGEST = timedelta(minutes=15), timedelta(days=7)
NETWORKS = IPv4Network("10.128.0.0/9")
"""The networks of all test clusters. No other stack of the checkout uses them."""
_NETWORK_PREFIX = 20

_OF_THE_STACK_ALONE = (
    ("protect",),
    # DNS records, an address and a host name that lead to the other cluster.
    ("acme", "names"),
    ("loadBalancer", "elasticIp"),
    ("serverSettings", "server", "name"),
    ("serverSettings", "server.name"),
)
"""Paths of the settings that a test cluster does not take over."""


class CommandError(Exception):
    """A command is refused, or failed. Of a refused argument, the message holds the value and the remedy."""


def read_ttl(text: str) -> timedelta:
    """Reads the time until a test cluster expires: 30m, 4h or 2d."""
    match = _TTL.fullmatch(text)
    ttl = int(match[1]) * _UNITS[match[2]] if match else None
    if ttl is None or not _SHORTEST <= ttl <= _LONGEST:
        raise CommandError(
            f"TTL is {text or 'not given'}: give a time from 15m to 7d in minutes, hours or days, such as 4h"
        )
    return ttl


def check_name(name: str, other_stacks: Collection[str] = ()) -> None:
    """Raises `CommandError` for an invalid name, or one of the stacks that are not test clusters."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise CommandError(
            f"NAME is {name or 'not given'}: give lower-case letters, digits and single dashes, a letter first, "
            f"at most {_LONGEST_NAME} characters, such as pr-123"
        )
    if name in other_stacks:
        raise CommandError(f"NAME is {name}, which is not a test cluster: give another, such as pr-123")


def choose_network(name: str) -> str:
    """Returns the test cluster's network, which follows from its name."""
    networks = 2 ** (_NETWORK_PREFIX - NETWORKS.prefixlen)
    index = int.from_bytes(sha256(name.encode()).digest()) % networks
    first = NETWORKS.network_address + index * 2 ** (32 - _NETWORK_PREFIX)
    return f"{first}/{_NETWORK_PREFIX}"


def is_test_cluster(settings: Mapping[str, Any]) -> bool:
    """True if the settings have an expiry."""
    return _find_value(settings.get("config", {}), format_tag_path("expiry")) is not None


def create_settings(source: Mapping[str, Any], stack: str, name: str, expiry: str) -> dict[str, Any]:
    """Returns the settings of test cluster `name` from the settings of the stack `stack`, without its secrets."""
    settings = without_secrets(source)
    config: dict[str, Any] = settings["config"]
    if problems := _find_problems(source.get("config", {}), name):
        lines = (
            f"  {line.replace('pulumi config set', f'pulumi config set --stack {stack}')}"
            for line in problems
        )
        raise CommandError("\n".join([f"A test cluster cannot use the settings of {stack}:", *lines]))

    for path in _OF_THE_STACK_ALONE:
        config = _without(config, _key(path[0]), *path[1:])
    config[_key("domain")] = f"{name}.{config[_key('domain')]}"
    config[_key("network")] = {**_get_object(config, _key("network")), "cidr": choose_network(name)}
    if recordings := _get_object(config, _key("recordings")):
        # A test cluster leaves nothing behind, and does not mix its recordings with those of the other stack.
        config[_key("recordings")] = {**recordings, "bucket": "create", "deleteWithStack": True}
    tags = {**_get_object(_get_object(config, DEFAULT_TAGS), "tags"), "stack": name, "expiry": expiry}
    config[DEFAULT_TAGS] = {**_get_object(config, DEFAULT_TAGS), "tags": tags}
    return {**settings, "config": config}


def _find_problems(config: Mapping[str, Any], name: str) -> list[str]:
    required = {key if ":" in key else _key(key): command for key, command in REQUIRED_FROM_USER.items()}
    required[_key("route53Zone")] = f"pulumi config set {_key('route53Zone')} your-domain.org"
    if _key("tls") in config:
        del required[_key("acme.email")]
    problems = [
        f"{key} is not set: {command}" for key, command in required.items() if not _find_value(config, key)
    ]
    if domain := _find_value(config, _key("domain")):
        try:
            rules.validate_host_name(f"{name}.{domain}")
        except ValueError as error:
            problems.append(f"{_key('domain')} would be {name}.{domain}: {error}")
    if _find_value(config, _key("network.subnets")):
        problems.append(
            f"{_key('network.subnets')} would be shared, and the machines of both clusters would have the same addresses: "
            "choose a stack that creates its network"
        )
    if _key("tls") in config:
        problems.append(
            f"{_key('tls')} is a certificate with a private key, which is not copied: choose a stack with {_key('acme')}"
        )
    return problems


def _key(key: str) -> str:
    return f"{NAMESPACE}:{key}"


def _without(parent: Mapping[str, Any], key: str, *inner: str) -> dict[str, Any]:
    """Returns a copy of an object without the value at a path."""
    if not inner:
        return {name: value for name, value in parent.items() if name != key}
    return {**parent, key: _without(_get_object(parent, key), *inner)} if key in parent else {**parent}


def _get_object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns an object that is given as such or as JSON text. Empty for anything else."""
    value = rules.parse_json(parent.get(key))
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def _find_value(config: Mapping[str, Any], path: str) -> object:
    """Returns the value at a path such as ant-media-cluster:acme.email, or None."""
    key, *inner = path.split(".")
    if not inner:
        return config.get(key)
    return _find_value(_get_object(config, key), ".".join(inner))
