"""A cluster whose machines' processes were recorded while it was brought up."""

import pytest

from tests.e2e.conftest import BringUp
from tests.e2e.process_monitor import ProcessMonitor
from tests.e2e.running_cluster import Cluster, CommandResult, running_process, wait_until


@pytest.fixture(scope="session")
def process_monitor() -> ProcessMonitor:
    return ProcessMonitor()


@pytest.fixture(scope="session")
def bring_up(process_monitor: ProcessMonitor) -> BringUp:
    def bring_up_monitored(cluster: Cluster) -> CommandResult:
        with process_monitor.running():
            up = cluster.bring_up()
            if up.exit_code == 0:
                show_canaries(process_monitor)
        return up

    return bring_up_monitored


def show_canaries(monitor: ProcessMonitor) -> None:
    """Runs a process on a machine until the monitor has seen its arguments and its environment."""
    process = ["python3", "-c", "import time; time.sleep(60)", "a-canary-as-an-argument"]
    shell = ["sandbox/bin/cloud", "shell", "edge1"]
    with running_process([*shell, "env", "CANARY=in-an-environment", *process]):
        wait_until(lambda: monitor.has_seen("a-canary-as-an-argument"))
        wait_until(lambda: monitor.has_seen("HOME=/root", "CANARY=in-an-environment"))
