"""Fixtures of a cluster. The tests in a folder share one; tests that only read run before tests that change it."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import pytest

from sandbox.cloud import addresses, host
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, SandboxInternet, loopback_client
from tests.e2e.cluster_certificate import ClusterCertificate
from tests.e2e.host_snapshot import HostSnapshot, take_snapshot
from tests.e2e.running_cluster import (
    DOMAIN,
    LOOPBACK,
    Cluster,
    CommandResult,
    exclusive_run,
    get_sandbox_init,
)

ORDER = (
    # serving
    "test_secrets",
    "test_traffic",
    "test_ports",
    "test_metrics",
    "test_preview",
    "test_tags_and_protection",
    "test_expiring_clusters",
    "test_config_apply",
    "test_tls",
    # certificates
    "test_certificate_renewal",
    "test_certificate_failures",
    "test_certificate_changes",
    # machines
    "test_drift",
    "test_interrupted_scripts",
    "test_machine_lifecycle",
    "test_recordings",
    "test_edge_scaling",
    "test_failure",
    "test_upgrade",
    "test_single_node",
    # stacks
    "test_network_move",
    "test_own_resources",
    "test_teardown",
    # every folder
    "test_sandbox_down",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = {item.path.parent.name for item in items if item.path.parent.parent.name == "e2e"}
    if len(folders) > 1:
        raise pytest.UsageError(
            f"a run has one cluster: give the tests of one folder of {', '.join(folders)}"
        )
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the load balancer's log of a failed test to its report: a failure may not come again, and CI deletes the machine."""
    report = yield
    cluster = item.funcargs.get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        options = ("--lines=60", "--output=short-precise", "--unit=haproxy", "--unit=close-dead-connections")
        try:
            log = cluster.run_on("load-balancer", "journalctl", f"--since=@{call.start:.0f}", *options).output
        except Exception as error:  # the test may have deleted the machine
            log = repr(error)
        report.sections.append(("log of the load balancer", log))
    return report


BringUp = Callable[[Cluster], CommandResult]


@pytest.fixture(scope="session")
def bring_up() -> BringUp:
    """Brings the cluster up. The `conftest.py` of a folder may replace this fixture."""
    return Cluster.bring_up


@dataclass(frozen=True)
class Startup:
    host_before: HostSnapshot
    """The host before the sandbox existed."""
    up: CommandResult
    """The first `make up`."""


@pytest.fixture(scope="session")
def startup(bring_up: BringUp) -> Iterator[Startup]:
    if problem := host.find_unmet_requirement():
        pytest.fail(problem)
    cluster = Cluster()
    with exclusive_run():
        cluster.tear_down()  # remains of a killed run
        host_before = take_snapshot()
        try:
            up = bring_up(cluster)
            up.check()
            yield Startup(host_before, up)
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
