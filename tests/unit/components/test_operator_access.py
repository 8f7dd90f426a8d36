"""Whether the operator's machine can reach the load balancer, with a simulated internet."""

import io
import socket
from pathlib import Path
from typing import Any

import pytest

from components.operator_access import find_access_problem, find_agent_problem

BALANCER = "198.51.100.1"


class Internet:
    """Answers the address service and connections to port 22."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own_address: str | None = "203.0.113.20"
        self.ssh: type[OSError] | None = None
        """How connections fail; `None` if they are accepted."""
        monkeypatch.setattr("urllib.request.OpenerDirector.open", self._answer)
        monkeypatch.setattr(socket, "create_connection", self._connect)

    def _answer(self, url: str, timeout: float) -> io.BytesIO:
        if self.own_address is None:
            raise OSError("unreachable")
        return io.BytesIO(f"{self.own_address}\n".encode())

    def _connect(self, address: tuple[str, int], timeout: float) -> Any:
        assert address == (BALANCER, 22)
        if self.ssh:
            raise self.ssh
        return socket.socket()


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


def test_address_in_admin_cidrs_is_no_problem_even_while_ssh_is_closed(internet: Internet) -> None:
    # The update itself may be what opens it.
    internet.ssh = TimeoutError
    assert find_access_problem(["192.0.2.0/24", "203.0.113.0/24"], BALANCER) is None


@pytest.mark.parametrize("ssh", [None, ConnectionRefusedError])
def test_load_balancer_that_answers_is_no_problem(internet: Internet, ssh: type[OSError] | None) -> None:
    internet.ssh = ssh
    assert find_access_problem(["192.0.2.0/24"], BALANCER) is None


@pytest.mark.parametrize("balancer", [None, BALANCER])
def test_other_address_is_reported_with_the_command_that_adds_it(
    internet: Internet, balancer: str | None
) -> None:
    internet.ssh = TimeoutError
    assert find_access_problem(["192.0.2.0/24"], balancer) == (
        "ant-media-cluster:adminCidrs is 192.0.2.0/24: this machine's address 203.0.113.20 is not in it, so SSH cannot "
        "reach the load balancer. Run this from an address that is, or add it: "
        "pulumi config set --path 'ant-media-cluster:adminCidrs[1]' 203.0.113.20/32"
    )


@pytest.mark.parametrize("own_address", [None, "<html>"])
def test_unknown_address_is_a_problem_only_if_the_load_balancer_does_not_answer(
    internet: Internet, own_address: str | None
) -> None:
    internet.own_address = own_address
    assert find_access_problem(["192.0.2.0/24"], None) is None
    assert find_access_problem(["192.0.2.0/24"], BALANCER) is None
    internet.ssh = TimeoutError
    problem = find_access_problem(["192.0.2.0/24"], BALANCER)
    assert problem
    assert problem.startswith(f"SSH at {BALANCER} does not answer")
    assert problem.endswith("pulumi config set --path 'ant-media-cluster:adminCidrs[1]' ADDRESS/32")


def test_stale_agent_socket_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent"
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert find_agent_problem() is None
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen()
        assert find_agent_problem() is None
    assert find_agent_problem() == (
        f"SSH_AUTH_SOCK is {path}, where no SSH agent answers, so every SSH connection would fail. Run: unset SSH_AUTH_SOCK"
    )
