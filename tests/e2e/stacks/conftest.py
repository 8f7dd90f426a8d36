"""A local cloud without a cluster. The tests create stacks in it, with the secrets of the stack `sandbox`."""

import os
import shutil

import pytest

from tests.e2e.conftest import BringUp
from tests.e2e.running_cluster import SETTINGS_FOLDER, Cluster, CommandResult
from tests.project import PROJECT


@pytest.fixture(scope="session")
def bring_up() -> BringUp:
    return start_cloud


def start_cloud(cluster: Cluster) -> CommandResult:
    """Does what `make up` does before it runs `pulumi up`."""
    start = cluster.run("sandbox/bin/cloud", "start")
    start.check()
    SETTINGS_FOLDER.mkdir()
    shutil.copy(PROJECT / "Pulumi.yaml", SETTINGS_FOLDER)
    cluster.merge_settings("sandbox", (PROJECT / "Pulumi.sandbox.yaml").read_text()).check()
    path = f"PATH={PROJECT}/sandbox/bin:{os.environ['PATH']}"
    cluster.run("env", path, ".venv/bin/python", "-m", "operations.new_stack", "sandbox").check()
    return start
