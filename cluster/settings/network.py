"""Where the cluster's machines are: a VPC of its own, or subnets that exist already."""

from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Discriminator, StrictInt, StrictStr, Tag
from pydantic.dataclasses import dataclass

from cluster.settings.rules import MODEL, SUBNET_ID, from_json, full_match, private_network, whole


@dataclass(frozen=True, config=MODEL)
class Subnet:
    id: Annotated[
        StrictStr, AfterValidator(full_match(SUBNET_ID.pattern, "give the id of a subnet (subnet-…)"))
    ]
    cidr: Annotated[StrictStr, private_network(16, 28)]


def _distinct_subnets(subnets: tuple[Subnet, ...]) -> tuple[Subnet, ...]:
    if not subnets:
        raise ValueError("give at least one")
    for one, other in combinations(subnets, 2):
        if one.id == other.id:
            raise ValueError(f"{one.id} is there twice: give each subnet once")
        if IPv4Network(one.cidr).overlaps(IPv4Network(other.cidr)):
            raise ValueError(
                f"{one.id} ({one.cidr}) and {other.id} ({other.cidr}) overlap: give the CIDRs that AWS shows for them"
            )
    return subnets


@dataclass(frozen=True, config=MODEL)
class OwnNetwork:
    """A VPC of the cluster's own."""

    # AWS takes subnets of /16 to /28, and each is an eighth of the VPC.
    cidr: Annotated[StrictStr, private_network(16, 25)] = "10.0.0.0/16"
    # No region has more.
    zones: Annotated[StrictInt, whole(1, 6)] = 2


@dataclass(frozen=True, config=MODEL)
class ExistingSubnets:
    """Public subnets of one VPC that the user has already."""

    subnets: Annotated[tuple[Subnet, ...], AfterValidator(_distinct_subnets)]


def _has_any(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and any(key in value for key in keys)


def _own_or_existing(value: object) -> object:
    parsed = from_json(value)
    if _has_any(parsed, "subnets") and _has_any(parsed, "cidr", "zones"):
        raise ValueError(
            "keep cidr and zones for a VPC of the cluster's own, or subnets for existing ones, not both"
        )
    return parsed


def _network_kind(value: object) -> str:
    existing = isinstance(value, ExistingSubnets) or _has_any(value, "subnets")
    return "<existing>" if existing else "<own>"


Network = Annotated[
    Annotated[OwnNetwork, Tag("<own>")] | Annotated[ExistingSubnets, Tag("<existing>")],
    Discriminator(_network_kind),
    BeforeValidator(_own_or_existing),
]
