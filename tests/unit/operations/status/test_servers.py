"""Asks Ant Media Server on the nodes. A wrong password must not lock people out of the web panel."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.ssh import Failed
from operations.stack_state import Machine, StackState
from operations.status import servers
from operations.status.cluster import MediaServer, Unreachable
from operations.status.servers import PanelLogin, check_media_servers

LOGIN = PanelLogin("o'neill@example.org", "pass word")
FOUND = {"cpu_load": 1, "cpu_limit": 75, "memory_load": 2, "memory_limit": 75, "applications": ["live"]}
ACCEPTED = SimpleNamespace(exit_status=0, stdout=json.dumps(FOUND), stderr="")
REFUSED = SimpleNamespace(exit_status=3, stdout="", stderr="o'neill@example.org cannot log in")


class Nodes:
    """Three nodes. Records what is run on them."""

    def __init__(self, answers: Mapping[str, SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self._answers = answers
        monkeypatch.setattr(servers, "visit_machines", self._visit)
        machines = [
            SimpleNamespace(name=name, deployed_files="=== show-server.py\n")
            for name in (*answers, "database")
        ]
        self.state = cast(StackState, SimpleNamespace(machines=machines))

    async def _visit(
        self,
        machines: Sequence[Machine],
        check: Callable[[Machine, Any], Awaitable[object]],
        visited: Sequence[Machine],
    ) -> list[object]:
        async def run(machine: Machine, command: str, input: str) -> SimpleNamespace:
            self.asked.append((machine.name, command, input))
            return self._answers[machine.name]

        def connect(machine: Machine) -> object:
            return SimpleNamespace(run=lambda command, input, errors: run(machine, command, input))

        return [
            Failed("no answer in time") if machine.name == "edge2" else await check(machine, connect(machine))
            for machine in visited
        ]


def test_each_node_is_asked_with_the_password_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes({"origin1": ACCEPTED, "edge1": ACCEPTED, "edge2": ACCEPTED}, monkeypatch)
    assert check_media_servers(nodes.state, {"origin1", "edge1", "edge2"}, LOGIN) == {
        "origin1": MediaServer(1, 75, 2, 75, ["live"]),
        "edge1": MediaServer(1, 75, 2, 75, ["live"]),
        "edge2": Unreachable("no answer in time"),
    }
    assert [name for name, _, _ in nodes.asked] == ["origin1", "edge1"]
    command = "sudo timeout 38 /usr/local/lib/ant-media-cluster/show-server.py 'o'\"'\"'neill@example.org'"
    assert {(command, input) for _, command, input in nodes.asked} == {(command, "pass word\n")}


def test_refused_login_is_tried_on_one_node_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some failed logins Ant Media Server refuses all for five minutes."""
    nodes = Nodes({"origin1": REFUSED, "edge1": REFUSED, "edge2": REFUSED}, monkeypatch)
    results = check_media_servers(nodes.state, {"origin1", "edge1", "edge2"}, LOGIN)
    assert results == dict.fromkeys(
        ("origin1", "edge1", "edge2"), Unreachable("o'neill@example.org cannot log in")
    )
    assert [name for name, _, _ in nodes.asked] == ["origin1"]
