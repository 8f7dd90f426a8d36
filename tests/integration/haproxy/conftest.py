"""Fixtures: HAProxy and dummy nodes on their real ports and addresses, in network namespaces."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from tests.integration.haproxy.clients import CLIENT, STRANGER
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN, HAProxy, make_certificate
from tests.integration.haproxy.network_namespace import Network, separate_networks

ORIGINS = tuple(Server(f"origin{n}", f"10.0.0.{7 + n}") for n in (1, 2))
EDGES = tuple(Server(f"edge{n}", f"10.0.1.{250 - n}") for n in (1, 2, 3))
CLUSTER = HAProxyConfig(
    domain=DOMAIN,
    origins=ORIGINS,
    edges=EDGES[:2],
    applications=("LiveApp", "WebRTCAppEE", "live"),
    admin_cidrs=("192.0.2.0/24", f"{CLIENT}/32"),
    rtmps_port=1936,
    memory_mib=1024,
    hsts_max_age=31536000,
)
GROWN = replace(CLUSTER, edges=EDGES)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[Network]:
    servers = [server.address for server in ORIGINS + EDGES]
    with separate_networks(BALANCER, servers, [CLIENT, STRANGER]) as network:
        yield network


@pytest.fixture(scope="module")
def nodes(network: Network) -> Iterator[dict[str, Node]]:
    with network.enter_nodes():
        running = {server.name: Node(server.name, server.address) for server in ORIGINS + EDGES}
    yield running
    for node in running.values():
        node.stop()


@dataclass(frozen=True)
class Balancer:
    """HAProxy in front of two origins and two edges."""

    haproxy: HAProxy
    nodes: dict[str, Node]


@pytest.fixture(scope="module")
def exact_checks() -> bool:
    """Whether health checks take the time of haproxy.cfg. Modules replace this."""
    return False


@pytest.fixture(scope="module")
def balancer(
    layers: str,
    certificate: Path,
    nodes: dict[str, Node],
    exact_checks: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Balancer]:
    haproxy = HAProxy(layers, tmp_path_factory.mktemp("haproxy"), certificate, exact=exact_checks)
    haproxy.start(render_haproxy_cfg(CLUSTER))
    yield Balancer(haproxy, nodes)
    haproxy.stop()
