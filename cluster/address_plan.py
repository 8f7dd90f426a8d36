"""Every private address, computed before anything exists.

The VPC is always divided in eight, so that a further zone changes no subnet; origins count upward and edges downward, so
that growth of one never renumbers a machine that is there already. A node has the same place in whichever subnet it is:
where a change of zones moves nodes, none comes to the address of another that has not moved yet.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network

from cluster.settings.network import ExistingSubnets, OwnNetwork

# AWS keeps the first four addresses of a subnet (network, router, DNS, reserve) and the last.
_LOAD_BALANCER_OFFSET = 4
_DATABASE_OFFSET = 5
_FIRST_NODE_OFFSET = 8
_ADDRESSES_WITHOUT_NODE = _FIRST_NODE_OFFSET + 1


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
    """A machine's name and place; `index` counts from 0 within its role, `subnet` is its `PlannedSubnet`'s."""

    name: str
    role: Role
    index: int
    address: str
    subnet: int


@dataclass(frozen=True)
class AddressPlan:
    """`vpc_cidr` is None where the subnets exist already. The database has its address whether it is needed or not."""

    vpc_cidr: str | None
    subnets: tuple[PlannedSubnet, ...]
    load_balancer: Machine
    database: Machine
    origins: tuple[Machine, ...]
    edges: tuple[Machine, ...]


class AddressPlanError(ValueError):
    """More nodes were asked for than the subnets have addresses."""


def plan(network: OwnNetwork | ExistingSubnets, origins: int, edges: int) -> AddressPlan:
    """The addresses of all machines, or an `AddressPlanError` that says which subnet is full."""
    subnets = _subnets(network)
    _require_room(subnets, origins, edges)

    def machine(name: str, role: Role, index: int, subnet: PlannedSubnet, offset: int) -> Machine:
        return Machine(name, role, index, str(IPv4Network(subnet.cidr)[offset]), subnet.index)

    def origin(index: int) -> Machine:
        subnet = subnets[index % len(subnets)]
        return machine(f"origin{index + 1}", Role.ORIGIN, index, subnet, _FIRST_NODE_OFFSET + index)

    def edge(index: int) -> Machine:
        return machine(f"edge{index + 1}", Role.EDGE, index, subnets[index % len(subnets)], -2 - index)

    return AddressPlan(
        vpc_cidr=network.cidr if isinstance(network, OwnNetwork) else None,
        subnets=subnets,
        load_balancer=machine("load-balancer", Role.LOAD_BALANCER, 0, subnets[0], _LOAD_BALANCER_OFFSET),
        database=machine("database", Role.DATABASE, 0, subnets[0], _DATABASE_OFFSET),
        origins=tuple(map(origin, range(origins))),
        edges=tuple(map(edge, range(edges))),
    )


def _subnets(network: OwnNetwork | ExistingSubnets) -> tuple[PlannedSubnet, ...]:
    if isinstance(network, ExistingSubnets):
        return tuple(PlannedSubnet(i, subnet.cidr, subnet.id) for i, subnet in enumerate(network.subnets))
    eighths = IPv4Network(network.cidr).subnets(prefixlen_diff=3)
    return tuple(
        PlannedSubnet(i, str(cidr), None) for i, cidr in zip(range(network.zones), eighths, strict=False)
    )


def _require_room(subnets: tuple[PlannedSubnet, ...], origins: int, edges: int) -> None:
    smallest = min(subnets, key=lambda subnet: IPv4Network(subnet.cidr).num_addresses)
    room = IPv4Network(smallest.cidr).num_addresses - _ADDRESSES_WITHOUT_NODE
    if origins + edges > room:
        raise AddressPlanError(
            f"subnet {smallest.cidr} has places for {room} nodes, but there are {origins} origins and {edges} edges: "
            "give a larger network, or fewer nodes"
        )
