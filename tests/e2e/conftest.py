"""One cluster for all tests, brought up and taken away by the README's commands; looking at it comes before changing it."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox.cloud import addresses, host
from tests.e2e.clients import Internet, Visitor
from tests.e2e.cluster_certificate import Certificate
from tests.e2e.host_snapshot import HostSnapshot, take_snapshot
from tests.e2e.process_monitor import watching
from tests.e2e.running_cluster import DOMAIN, LOOPBACK, STATE, Cluster, Done, alone

ORDER = (
    "test_secrets",
    "test_traffic",
    "test_ports",
    "test_preview",
    "test_tags_and_protection",
    "test_expiring_clusters",
    "test_config_apply",
    "test_certificate_renewal",
    "test_certificate_failures",
    "test_tls",
    "test_certificate_changes",
    "test_drift",
    "test_edge_scaling",
    "test_machine_lifecycle",
    "test_single_node",
    "test_teardown",
    "test_sandbox_down",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@dataclass(frozen=True)
class Start:
    """How the cluster came up."""

    before: HostSnapshot
    """The host, when nothing of this sandbox was there."""
    up: Done
    canary: str
    """Was an argument and in the environment of a process in a machine, while somebody watched."""
    seen: set[bytes]
    """Every command line and environment of a process in a machine that was seen meanwhile."""
    sweeps: int
    seconds: float


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    if complaint := host.complaint():
        pytest.fail(complaint)
    cluster = Cluster()
    with alone():
        cluster.take_away()  # what a run that was killed has left
        before = take_snapshot()
        try:
            canary = "a-canary-that-is-to-be-seen"
            began = time.monotonic()
            with watching() as watcher:
                up = cluster.bring_up()
                assert up.status == 0, up.output
                cluster.shell("edge1", "env", f"CANARY={canary}-in-environment", "sleep", "0.3")
                cluster.shell(
                    "edge1", "python3", "-c", "import time; time.sleep(0.3)", f"{canary}-as-argument"
                )
            yield Start(before, up, canary, watcher.seen, watcher.sweeps, time.monotonic() - began)
        finally:
            cluster.take_away()


@pytest.fixture(scope="session")
def cluster(start: Start) -> Cluster:
    return Cluster()


@pytest.fixture(scope="session")
def internet(cluster: Cluster) -> Internet:
    return Internet(int((STATE / "pid").read_text().split()[1]))


@pytest.fixture(scope="session")
def operator(cluster: Cluster, internet: Internet) -> Visitor:
    """On the sandbox's internet, where the cluster's name leads to the load balancer."""
    address = cluster.must(*cluster.as_operator("getent", "hosts", DOMAIN)).split()[0]
    return Visitor(
        lambda port: internet.connect(address, port, addresses.OPERATOR),
        STATE / "operator/ca-certificates.crt",
    )


@pytest.fixture(scope="session")
def certificate(cluster: Cluster, operator: Visitor) -> Certificate:
    return Certificate(cluster, operator)


@pytest.fixture(scope="session")
def this_host(cluster: Cluster) -> Visitor:
    """On this host, where a loopback address leads there."""
    return Visitor(
        lambda port: socket.create_connection((LOOPBACK, port), timeout=10),
        STATE / "operator/ca-certificates.crt",
    )


@pytest.fixture(scope="session", params=["operator", "this_host"])
def visitor(request: pytest.FixtureRequest) -> Visitor:
    """Each of the two."""
    found: Visitor = request.getfixturevalue(request.param)
    return found
