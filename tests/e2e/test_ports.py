"""Every port of every kind of machine, from everywhere: what answers is what the port table says, and nothing else."""

import pytest

from tests.e2e.port_scan import Protocol, permitted, tcp_ports, udp_ports, viewpoints
from tests.e2e.running_cluster import Cluster

# One machine of each kind, and another where a kind has a second: nodes are neighbours of each other.
TARGETS = {
    "admin": ["load-balancer", "origin1", "edge1", "database"],
    "stranger": ["load-balancer", "origin1", "edge1", "database"],
    "load-balancer": ["origin1", "edge1", "database"],
    "origin1": ["load-balancer", "origin2", "edge1", "database"],
    "edge1": ["load-balancer", "origin1", "edge2", "database"],
    "database": ["load-balancer", "origin1", "edge1"],
}


@pytest.mark.parametrize("viewpoint", TARGETS)
def test_the_open_tcp_ports_are_those_of_the_port_table_seen_from(cluster: Cluster, viewpoint: str) -> None:
    machines = cluster.machines()
    there = viewpoints(machines)[viewpoint]
    targets = [machines[name] for name in TARGETS[viewpoint]]
    expected = {
        target.name: dict.fromkeys(sorted(permitted(target, there.who, Protocol.TCP)), "open")
        for target in targets
    }
    found = {name: dict(sorted(ports.items())) for name, ports in tcp_ports(cluster, there, targets).items()}
    assert found == expected


@pytest.mark.parametrize(
    ("viewpoint", "target"),
    [
        ("stranger", "origin1"),
        ("stranger", "edge1"),
        ("admin", "load-balancer"),
        ("admin", "origin1"),
        ("load-balancer", "edge1"),
        ("edge2", "database"),
    ],
)
def test_the_udp_ports_that_are_let_through_are_those_of_the_port_table(
    cluster: Cluster, viewpoint: str, target: str
) -> None:
    machines = cluster.machines()
    there = viewpoints(machines)[viewpoint]
    expected = permitted(machines[target], there.who, Protocol.UDP)
    assert expected == (set(range(50000, 60001)) if target.startswith(("origin", "edge")) else set())
    assert udp_ports(cluster, there, machines[target]) == expected
