"""A cluster from an image that amsZip can upgrade. The tests of serving show `make up` itself."""

import pytest

from tests.e2e.conftest import BringUp
from tests.e2e.running_cluster import Cluster, CommandResult
from tests.e2e.small_stack import start_cloud

IMAGE = "ami-0a27ed1a000000001"
"""The stand-in's image, whose server is version 3.0.3. The default, marketplace, is the same image, but excludes amsZip."""


@pytest.fixture(scope="session")
def bring_up() -> BringUp:
    def bring_up_from_image(cluster: Cluster) -> CommandResult:
        start_cloud(cluster, mediaImage=IMAGE)
        return cluster.pulumi("up", "--yes", "--skip-preview")

    return bring_up_from_image
