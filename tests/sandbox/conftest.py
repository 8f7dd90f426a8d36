"""What the tests of the plugin stand-ins share: a stack of their own, and a machine to run commands on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_sshd import Sshd
from plugin_stack import Stack


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def stack(tmp_path: Path, pulumi_home: Path) -> Stack:
    return Stack(tmp_path / "stack", pulumi_home)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    machine = Sshd(tmp_path_factory.mktemp("sshd"))
    machine.start()
    yield machine
    machine.stop()
