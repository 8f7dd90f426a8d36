from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.address_plan import AddressPlan, AddressPlanError, MachinePlace, plan_addresses
from cluster.settings.network import ExistingSubnets, OwnNetwork, Subnet

own_networks = st.builds(
    OwnNetwork, cidr=st.integers(16, 25).map(lambda prefix: f"10.64.0.0/{prefix}"), zones=st.integers(1, 6)
)
existing_subnets = st.lists(st.integers(22, 28), min_size=1, max_size=5).map(
    lambda prefixes: ExistingSubnets(
        subnets=tuple(
            Subnet(f"subnet-{i:08x}", f"172.16.{4 * i}.0/{prefix}") for i, prefix in enumerate(prefixes)
        )
    )
)
networks = own_networks | existing_subnets


def list_machines(addresses: AddressPlan) -> list[MachinePlace]:
    return [addresses.load_balancer, addresses.database, *addresses.origins, *addresses.edges]


def plan_or_none(network: OwnNetwork | ExistingSubnets, origins: int, edges: int) -> AddressPlan | None:
    try:
        return plan_addresses(network, origins, edges)
    except AddressPlanError:
        return None


def test_addresses_of_a_small_cluster():
    addresses = plan_addresses(OwnNetwork(cidr="10.0.0.0/16", zones=2), origins=3, edges=2)
    assert addresses.vpc_cidr == "10.0.0.0/16"
    assert [subnet.cidr for subnet in addresses.subnets] == ["10.0.0.0/19", "10.0.32.0/19"]
    assert {machine.name: (machine.address, machine.subnet) for machine in list_machines(addresses)} == {
        "load-balancer": ("10.0.0.4", 0),
        "database": ("10.0.0.5", 0),
        "origin1": ("10.0.0.8", 0),
        "origin2": ("10.0.32.9", 1),
        "origin3": ("10.0.0.10", 0),
        "edge1": ("10.0.31.254", 0),
        "edge2": ("10.0.63.253", 1),
    }


@given(networks, st.integers(1, 60), st.integers(0, 120))
def test_every_machine_has_a_unique_address_that_aws_does_not_reserve(
    network: OwnNetwork | ExistingSubnets, origins: int, edges: int
):
    addresses = plan_or_none(network, origins, edges)
    if addresses is None:
        return
    planned = list_machines(addresses)
    assert len({machine.address for machine in planned}) == len({machine.name for machine in planned})
    assert len(planned) == 2 + origins + edges
    for machine in planned:
        subnet = IPv4Network(addresses.subnets[machine.subnet].cidr)
        offset = int(IPv4Address(machine.address)) - int(subnet.network_address)
        assert 4 <= offset < subnet.num_addresses - 1


@given(networks, st.integers(1, 60), st.integers(0, 120), st.integers(0, 9), st.integers(0, 9))
def test_more_nodes_change_no_existing_address(
    network: OwnNetwork | ExistingSubnets, origins: int, edges: int, more_origins: int, more_edges: int
):
    larger = plan_or_none(network, origins + more_origins, edges + more_edges)
    if larger is None:
        return
    smaller = plan_addresses(network, origins, edges)
    assert larger.origins[:origins] == smaller.origins
    assert larger.edges[:edges] == smaller.edges
    assert (larger.load_balancer, larger.database) == (smaller.load_balancer, smaller.database)


@given(st.integers(16, 25), st.integers(1, 5))
def test_one_more_zone_changes_no_existing_subnet(prefix: int, zones: int):
    fewer = plan_addresses(OwnNetwork(f"10.64.0.0/{prefix}", zones), 1, 0).subnets
    assert plan_addresses(OwnNetwork(f"10.64.0.0/{prefix}", zones + 1), 1, 0).subnets[:zones] == fewer


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 60), st.integers(0, 120))
def test_a_change_of_zones_gives_no_node_the_address_of_another(
    before: int, after: int, origins: int, edges: int
):
    old, new = (
        list_machines(plan_addresses(OwnNetwork(zones=zones), origins, edges)) for zones in (before, after)
    )
    owners = {machine.address: machine.name for machine in old}
    assert all(owners.get(machine.address, machine.name) == machine.name for machine in new)


def test_a_subnet_can_be_filled_completely():
    network = ExistingSubnets(subnets=(Subnet("subnet-12345678", "10.1.0.0/28"),))
    full = plan_addresses(network, origins=3, edges=4)
    assert {machine.address for machine in list_machines(full)} == {
        f"10.1.0.{offset}" for offset in (4, 5, *range(8, 15))
    }
    with pytest.raises(AddressPlanError) as error:
        plan_addresses(network, origins=4, edges=4)
    assert str(error.value) == (
        "subnet 10.1.0.0/28 has addresses for 7 nodes, but the cluster has 4 origins and 4 edges: "
        "give a larger network or fewer nodes"
    )


@given(st.integers(1, 6), st.integers(1, 6))
def test_every_machine_knows_its_addresses_in_other_zones(before: int, after: int):
    old, new = (
        list_machines(plan_addresses(OwnNetwork(cidr="10.0.0.0/16", zones=zones), 5, 5))
        for zones in (before, after)
    )
    for machine, moved in zip(old, new, strict=True):
        assert machine.addresses == moved.addresses
        assert machine.address in moved.addresses
    assert len(frozenset().union(*(machine.addresses for machine in new))) == 8 * len(new)
