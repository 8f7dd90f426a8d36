"""What a test cluster is: a stack like another, under a name, in a network and with an expiry of its own."""

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
# cluster/settings/stack_checks.py allows as much, and a label of a host name 63.
_LONGEST_NAME = 31
_TTL = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_SHORTEST, _LONGEST = timedelta(minutes=15), timedelta(days=7)
# Nothing of a stack in the checkout is in there.
NETWORKS = IPv4Network("10.128.0.0/9")
_NETWORK_PREFIX = 20


class RefusedError(ValueError):
    """Why there cannot be such a test cluster, and what would do."""


def read_ttl(text: str) -> timedelta:
    """How long a test cluster is wanted for, from a text such as 30m, 4h or 2d."""
    match = _TTL.fullmatch(text)
    ttl = int(match[1]) * _UNITS[match[2]] if match else None
    if ttl is None or not _SHORTEST <= ttl <= _LONGEST:
        raise RefusedError(
            f"TTL is {text or 'not given'}: give a time from 15m to 7d in minutes, hours or days, such as 4h"
        )
    return ttl


def check_name(name: str, taken: Collection[str] = ()) -> None:
    """`taken` are the names of stacks that are no test clusters."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise RefusedError(
            f"NAME is {name or 'not given'}: give lower-case letters, digits and single dashes, a letter first, "
            f"at most {_LONGEST_NAME} in all, such as pr-123"
        )
    if name in taken:
        raise RefusedError(
            f"NAME is {name}, which is a stack that does not expire: give another, such as pr-123"
        )


def network_of(name: str) -> str:
    """The test cluster's own network, always the same for a name."""
    networks = 2 ** (_NETWORK_PREFIX - NETWORKS.prefixlen)
    place = int.from_bytes(sha256(name.encode()).digest()) % networks
    first = NETWORKS.network_address + place * 2 ** (32 - _NETWORK_PREFIX)
    return f"{first}/{_NETWORK_PREFIX}"


def is_test_cluster(settings: Mapping[str, Any]) -> bool:
    return _find(settings.get("config", {}), format_tag_path("expiry")) is not None


def make_settings(like: Mapping[str, Any], stack: str, name: str, expiry: str) -> dict[str, Any]:
    """The settings of test cluster `name`, from those of the stack that it is made like."""
    settings = without_secrets(like)
    config: dict[str, Any] = settings["config"]
    if problems := _problems(like.get("config", {}), name):
        lines = (
            f"  {line.replace('pulumi config set', f'pulumi config set --stack {stack}')}"
            for line in problems
        )
        raise RefusedError("\n".join([f"No test cluster can be made like {stack}:", *lines]))

    config[_key("domain")] = f"{name}.{config[_key('domain')]}"
    config[_key("network")] = {**_object(config, _key("network")), "cidr": network_of(name)}
    # The other names lead to the other cluster.
    config[_key("acme")] = {
        key: value for key, value in _object(config, _key("acme")).items() if key != "names"
    }
    config.pop(_key("protect"), None)
    tags = {**_object(_object(config, DEFAULT_TAGS), "tags"), "stack": name, "expiry": expiry}
    config[DEFAULT_TAGS] = {**_object(config, DEFAULT_TAGS), "tags": tags}
    return settings


def _problems(like: Mapping[str, Any], name: str) -> list[str]:
    by_hand = {key if ":" in key else _key(key): command for key, command in REQUIRED_FROM_USER.items()}
    by_hand[_key("route53Zone")] = f"pulumi config set {_key('route53Zone')} your-domain.org"
    if _key("tls") in like:
        del by_hand[_key("acme.email")]
    problems = [f"{key} is not set: {command}" for key, command in by_hand.items() if not _find(like, key)]
    if domain := _find(like, _key("domain")):
        try:
            rules.validate_host_name(f"{name}.{domain}")
        except ValueError as error:
            problems.append(f"{_key('domain')} would be {name}.{domain}: {error}")
    if _find(like, _key("network.subnets")):
        problems.append(
            f"{_key('network.subnets')} would be shared, and machines of both clusters have the same addresses there: "
            "take a stack with a network of its own"
        )
    if _key("tls") in like:
        problems.append(
            f"{_key('tls')} is a certificate with a secret key, which is not copied: take a stack with {_key('acme')}"
        )
    return problems


def _key(key: str) -> str:
    return f"{NAMESPACE}:{key}"


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What is there: an object, that object as JSON in text, or nothing."""
    value = rules.parse_json(parent.get(key))
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def _find(config: Mapping[str, Any], path: str) -> object:
    """The value at a path such as ant-media-cluster:acme.email, None where there is none."""
    key, *inner = path.split(".")
    if not inner:
        return config.get(key)
    return _find(_object(config, key), ".".join(inner))
