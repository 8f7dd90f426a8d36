"""Every private address, computed before anything exists.

The VPC is always divided in eight, so that a further zone moves no machine; each role counts from
its own end of the subnets, so that growth never renumbers a machine that is there already.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from itertools import chain

from components.settings import ExistingSubnets, OwnNetwork


class Role(StrEnum):
    LOAD_BALANCER = "load-balancer"
    DATABASE = "database"
    ORIGIN = "origin"
    EDGE = "edge"


@dataclass(frozen=True)
class PlannedSubnet:
    """A subnet by its place in the plan; `id` is known only for one that exists already."""

    index: int
    cidr: str
    id: str | None


@dataclass(frozen=True)
class Machine:
    """A machine's name and place. `subnet` is the index of its `PlannedSubnet`."""

    name: str
    role: Role
    index: int
    address: str
    subnet: int


@dataclass(frozen=True)
class AddressPlan:
    vpc_cidr: str | None
    subnets: tuple[PlannedSubnet, ...]
    load_balancer: Machine
    database: Machine
    origins: tuple[Machine, ...]
    edges: tuple[Machine, ...]


class AddressPlanError(ValueError):
    """More machines were asked for than the subnets have addresses."""


def plan(network: OwnNetwork | ExistingSubnets, origins: int, edges: int) -> AddressPlan:
    raise NotImplementedError
