"""Fixtures: a Pulumi stack with the stand-in plugins, an sshd to run commands on, a local cloud and two machines in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.cloud.local_cloud import Machine, Sandbox, client, launch_pair
from tests.sandbox.plugins.plugin_sshd import Sshd
from tests.sandbox.plugins.plugin_stack import Stack, install_stand_ins


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_stand_ins(home)
    return home


@pytest.fixture
def stack(tmp_path: Path, pulumi_home: Path) -> Stack:
    return Stack(tmp_path / "stack", pulumi_home)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    machine = Sshd(tmp_path_factory.mktemp("sshd"))
    machine.start()
    yield machine
    machine.stop()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The tests share it. The last one of test_machines.py stops it."""
    sandbox = Sandbox(tmp_path_factory.mktemp("cloud") / "state")
    sandbox("start")
    yield sandbox
    sandbox("stop")


@pytest.fixture(scope="session")
def ec2() -> Any:
    return client("ec2")


@pytest.fixture(scope="session")
def pair(sandbox: Sandbox, ec2: Any) -> tuple[Machine, Machine]:
    return launch_pair(sandbox, ec2)
