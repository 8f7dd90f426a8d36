"""Fixtures of the one cluster that all tests share. Tests that only read run before tests that change it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox.cloud import addresses, host
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, SandboxInternet, loopback_client
from tests.e2e.cluster_certificate import ClusterCertificate
from tests.e2e.host_snapshot import HostSnapshot, take_snapshot
from tests.e2e.process_monitor import monitoring_processes
from tests.e2e.running_cluster import (
    DOMAIN,
    LOOPBACK,
    Cluster,
    CommandResult,
    exclusive_run,
    get_sandbox_init,
)

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
    "test_network_move",
    "test_teardown",
    "test_sandbox_down",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@dataclass(frozen=True)
class Startup:
    """The first `make up` and what was recorded meanwhile."""

    host_before: HostSnapshot
    """The host before the sandbox existed."""
    up: CommandResult
    canary: str
    """Marker that appeared in the arguments and the environment of a machine's processes."""
    seen: set[bytes]
    """Every recorded command line and environment of a machine's process."""
    sweeps: int
    seconds: float


@pytest.fixture(scope="session")
def startup() -> Iterator[Startup]:
    if problem := host.find_unmet_requirement():
        pytest.fail(problem)
    cluster = Cluster()
    with exclusive_run():
        cluster.tear_down()  # remains of a killed run
        host_before = take_snapshot()
        try:
            canary = "a-canary-for-the-process-monitor"
            started = time.monotonic()
            with monitoring_processes() as monitor:
                up = cluster.bring_up()
                up.check()
                cluster.run_on("edge1", "env", f"CANARY={canary}-in-environment", "sleep", "0.3")
                cluster.run_on(
                    "edge1", "python3", "-c", "import time; time.sleep(0.3)", f"{canary}-as-argument"
                )
            yield Startup(host_before, up, canary, monitor.seen, monitor.sweeps, time.monotonic() - started)
        finally:
            cluster.tear_down()


@pytest.fixture(scope="session")
def cluster(startup: Startup) -> Cluster:
    return Cluster()


@pytest.fixture(scope="session")
def internet(cluster: Cluster) -> SandboxInternet:
    return SandboxInternet(get_sandbox_init())


@pytest.fixture(scope="session")
def account(cluster: Cluster, internet: SandboxInternet) -> AwsAccount:
    return AwsAccount(cluster, internet)


@pytest.fixture(scope="session")
def operator_client(cluster: Cluster, internet: SandboxInternet) -> Client:
    """A client on the sandbox's internet, which reaches the load balancer by the cluster's DNS name."""
    address = cluster.check_output(*cluster.operator_command("getent", "hosts", DOMAIN)).split()[0]
    return Client(lambda port: internet.connect(address, port, addresses.OPERATOR))


@pytest.fixture(scope="session")
def host_client(cluster: Cluster) -> Client:
    """A client on this host, which reaches the load balancer at a loopback address."""
    return loopback_client(LOOPBACK)


@pytest.fixture(scope="session", params=["operator_client", "host_client"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two clients."""
    client: Client = request.getfixturevalue(request.param)
    return client


@pytest.fixture(scope="session")
def certificate(cluster: Cluster, operator_client: Client) -> ClusterCertificate:
    return ClusterCertificate(cluster, operator_client)
