"""Plans the private IPv4 address of every machine before any resource exists.

- The VPC is always divided into eight subnets, so a change of `zones` never changes the CIDR of a subnet.
- In each subnet, origins are numbered upward and edges downward. A new node never changes the address of another.
- The offset of a node is the same in every subnet. When a change of `zones` moves nodes to other subnets, no node
  gets an address that another node still uses.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Network

from cluster.settings.network import ExistingSubnets, OwnNetwork, Subnet

# AWS reserves the first four addresses of a subnet (network, router, DNS, future use) and the last one.
_LOAD_BALANCER_OFFSET = 4
_DATABASE_OFFSET = 5
_FIRST_NODE_OFFSET = 8
_ADDRESSES_RESERVED_PER_SUBNET = _FIRST_NODE_OFFSET + 1


class Role(StrEnum):
    """What a machine does in the cluster. The load balancer and the database have the name of their role."""

    LOAD_BALANCER = "load-balancer"
    DATABASE = "database"
    ORIGIN = "origin"
    EDGE = "edge"


@dataclass(frozen=True)
class PlannedSubnet:
    """A subnet that the cluster uses."""

    index: int
    """Position in `AddressPlan.subnets`."""
    cidr: str
    id: str | None
    """AWS's subnet id, None if the program creates the subnet."""
    public: bool = True
    """False for the database's private subnet."""


@dataclass(frozen=True)
class MachinePlace:
    """A machine's name, role and place in the network."""

    name: str
    """`load-balancer`, `database`, `origin1`, `edge1`, …"""
    role: Role
    index: int
    """Counts from 0 within the role."""
    address: str
    """Private IPv4 address."""
    addresses: frozenset[str]
    """Its address in each subnet. A change of `zones` moves the machine from one of these to another."""
    subnet: int
    """Index of the machine's `PlannedSubnet`."""


@dataclass(frozen=True)
class AddressPlan:
    """The subnets and machines of a cluster."""

    vpc_cidr: str | None
    """None if the subnets already exist."""
    subnets: tuple[PlannedSubnet, ...]
    load_balancer: MachinePlace
    database: MachinePlace
    """Has an address even if the cluster needs no database machine."""
    origins: tuple[MachinePlace, ...]
    edges: tuple[MachinePlace, ...]


class AddressPlanError(ValueError):
    """A subnet has too few addresses for the nodes."""


def plan_addresses(
    network: OwnNetwork | ExistingSubnets, origins: int, edges: int, database_subnet: Subnet | None = None
) -> AddressPlan:
    """Returns the address plan for a number of origins and edges. The database may have a subnet of its own.

    Raises `AddressPlanError`, which names the smallest subnet, if the nodes do not fit into it.
    """
    subnets = _plan_subnets(network)
    _check_capacity(subnets, origins, edges)
    blocks = _divide(network) if isinstance(network, OwnNetwork) else [IPv4Network(s.cidr) for s in subnets]

    public = subnets

    def place(name: str, role: Role, index: int, subnet: PlannedSubnet, offset: int) -> MachinePlace:
        address = str(IPv4Network(subnet.cidr)[offset])
        addresses = frozenset(str(block[offset]) for block in blocks)
        return MachinePlace(name, role, index, address, addresses, subnet.index)

    def origin(index: int) -> MachinePlace:
        subnet = public[index % len(public)]
        return place(f"origin{index + 1}", Role.ORIGIN, index, subnet, _FIRST_NODE_OFFSET + index)

    def edge(index: int) -> MachinePlace:
        return place(f"edge{index + 1}", Role.EDGE, index, public[index % len(public)], -2 - index)

    database = place(Role.DATABASE.value, Role.DATABASE, 0, public[0], _DATABASE_OFFSET)
    if database_subnet:
        private = PlannedSubnet(len(subnets), database_subnet.cidr, database_subnet.id, public=False)
        address = str(IPv4Network(private.cidr)[_DATABASE_OFFSET])
        database = replace(database, address=address, addresses=frozenset({address}), subnet=private.index)
        subnets = (*subnets, private)
    return AddressPlan(
        vpc_cidr=network.cidr if isinstance(network, OwnNetwork) else None,
        subnets=subnets,
        load_balancer=place(
            Role.LOAD_BALANCER.value, Role.LOAD_BALANCER, 0, public[0], _LOAD_BALANCER_OFFSET
        ),
        database=database,
        origins=tuple(map(origin, range(origins))),
        edges=tuple(map(edge, range(edges))),
    )


def _plan_subnets(network: OwnNetwork | ExistingSubnets) -> tuple[PlannedSubnet, ...]:
    if isinstance(network, ExistingSubnets):
        return tuple(PlannedSubnet(i, subnet.cidr, subnet.id) for i, subnet in enumerate(network.subnets))
    return tuple(
        PlannedSubnet(i, str(cidr), None) for i, cidr in enumerate(_divide(network)[: network.zones])
    )


def _divide(network: OwnNetwork) -> list[IPv4Network]:
    return [*IPv4Network(network.cidr).subnets(prefixlen_diff=3)]


def _check_capacity(subnets: tuple[PlannedSubnet, ...], origins: int, edges: int) -> None:
    smallest = min(subnets, key=lambda subnet: IPv4Network(subnet.cidr).num_addresses)
    capacity = IPv4Network(smallest.cidr).num_addresses - _ADDRESSES_RESERVED_PER_SUBNET
    # Every node has its own offset, whichever its subnet. So the smallest subnet must have an address for each of them.
    if origins + edges > capacity:
        raise AddressPlanError(
            f"subnet {smallest.cidr} has addresses for {capacity} nodes, but the cluster has {origins} origins "
            f"and {edges} edges: give a larger network or fewer nodes"
        )
