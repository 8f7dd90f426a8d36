"""Scans the ports of every kind of machine from every kind of source, and compares the result with the port table."""

import pytest

from tests.e2e.port_scan import (
    Protocol,
    list_permitted_ports,
    list_viewpoints,
    scan_tcp_ports,
    scan_udp_ports,
)
from tests.e2e.running_cluster import Cluster

# By viewpoint: one machine of each kind. A node's target of its own kind is another node.
TARGETS = {
    "admin": ["load-balancer", "origin1", "edge1", "database"],
    "monitor": ["load-balancer", "origin1"],
    "stranger": ["load-balancer", "origin1", "edge1", "database"],
    "load-balancer": ["origin1", "edge1", "database"],
    "origin1": ["load-balancer", "origin2", "edge1", "database"],
    "edge1": ["load-balancer", "origin1", "edge2", "database"],
    "database": ["load-balancer", "origin1", "edge1"],
}


@pytest.mark.parametrize("viewpoint", TARGETS)
def test_open_tcp_ports_match_the_port_table_seen_from(cluster: Cluster, viewpoint: str) -> None:
    machines = cluster.list_machines()
    source = list_viewpoints(machines)[viewpoint]
    targets = [machines[name] for name in TARGETS[viewpoint]]
    expected = {
        target.name: dict.fromkeys(sorted(list_permitted_ports(target, source.sources, Protocol.TCP)), "open")
        for target in targets
    }
    found = {
        name: dict(sorted(ports.items())) for name, ports in scan_tcp_ports(cluster, source, targets).items()
    }
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
def test_permitted_udp_ports_match_the_port_table(cluster: Cluster, viewpoint: str, target: str) -> None:
    machines = cluster.list_machines()
    source = list_viewpoints(machines)[viewpoint]
    expected = list_permitted_ports(machines[target], source.sources, Protocol.UDP)
    assert expected == (set(range(50000, 60001)) if target.startswith(("origin", "edge")) else set())
    assert scan_udp_ports(cluster, source, machines[target]) == expected
