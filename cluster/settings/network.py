"""Models the network settings: a new VPC, or subnets that already exist."""

from collections.abc import Sequence
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Discriminator, StrictInt, StrictStr, Tag
from pydantic.dataclasses import dataclass

from cluster.settings.rules import (
    MODEL_CONFIG,
    integer_between,
    parse_json,
    pattern_validator,
    private_network,
)

_validate_subnet_id = pattern_validator(
    r"subnet-([0-9a-f]{8}|[0-9a-f]{17})", "give the id of a subnet (subnet-…)"
)


@dataclass(frozen=True, config=MODEL_CONFIG)
class Subnet:
    """An existing subnet, with the CIDR that AWS shows for it."""

    id: Annotated[StrictStr, AfterValidator(_validate_subnet_id)]
    cidr: Annotated[StrictStr, private_network(16, 28)]


def _validate_subnets(subnets: tuple[Subnet, ...]) -> tuple[Subnet, ...]:
    if not subnets:
        raise ValueError("give at least one")
    if problem := find_overlap(subnets):
        raise ValueError(problem)
    return subnets


def find_overlap(subnets: Sequence[Subnet]) -> str | None:
    """Returns which subnets are the same or overlap, with the remedy, or None."""
    for one, other in combinations(subnets, 2):
        if one.id == other.id:
            return f"{one.id} repeats: give each subnet only once"
        if IPv4Network(one.cidr).overlaps(IPv4Network(other.cidr)):
            return f"{one.id} ({one.cidr}) and {other.id} ({other.cidr}) overlap: give the CIDRs that AWS shows for them"
    return None


@dataclass(frozen=True, config=MODEL_CONFIG)
class OwnNetwork:
    """A VPC that the program creates, with a public subnet in each of `zones` availability zones."""

    # Each subnet is an eighth of the VPC, and AWS allows subnets from /16 to /28.
    cidr: Annotated[StrictStr, private_network(16, 25)] = "10.0.0.0/16"
    # No AWS region has more availability zones.
    zones: Annotated[StrictInt, integer_between(1, 6)] = 2


@dataclass(frozen=True, config=MODEL_CONFIG)
class ExistingSubnets:
    """Public subnets of one VPC that already exist."""

    subnets: Annotated[tuple[Subnet, ...], AfterValidator(_validate_subnets)]


def _has_any_key(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and any(key in value for key in keys)


def _parse_network_json(value: object) -> object:
    parsed = parse_json(value)
    if _has_any_key(parsed, "subnets") and _has_any_key(parsed, "cidr", "zones"):
        raise ValueError("give cidr and zones for a new VPC, or subnets for existing ones, not both")
    return parsed


def _choose_tag(value: object) -> str:
    existing = isinstance(value, ExistingSubnets) or _has_any_key(value, "subnets")
    return "<existing>" if existing else "<own>"


# pydantic puts the tag into the path of an error; reader.py removes parts that start with <.
Network = Annotated[
    Annotated[OwnNetwork, Tag("<own>")] | Annotated[ExistingSubnets, Tag("<existing>")],
    Discriminator(_choose_tag),
    BeforeValidator(_parse_network_json),
]
