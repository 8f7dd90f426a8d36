"""A cluster with one origin and one edge: the number of nodes does not matter to the certificate."""

import pytest

from tests.e2e.conftest import BringUp
from tests.e2e.running_cluster import Cluster, CommandResult
from tests.e2e.small_stack import start_cloud


@pytest.fixture(scope="session")
def bring_up() -> BringUp:
    def bring_up_small_cluster(cluster: Cluster) -> CommandResult:
        start_cloud(cluster, origins={"count": 1}, edges={"count": 1})
        return cluster.pulumi("up", "--yes", "--skip-preview")

    return bring_up_small_cluster
