"""Which of database and standby leads: the decisions of keep-registry.py."""

import importlib.util
import sys
from typing import Any

import pytest

from tests.project import PROJECT

spec = importlib.util.spec_from_file_location(
    "keep_registry", PROJECT / "templates/scripts/balancer/keep-registry.py"
)
assert spec
assert spec.loader
script: Any = importlib.util.module_from_spec(spec)
sys.modules["keep_registry"] = script  # dataclasses look it up
spec.loader.exec_module(script)
State, Step, choose_step = script.State, script.Step, script.choose_step

PRIMARY, REPLICA = State(True, "id"), State(False, "id")
COPIED = State(True, "id", has_replica=True)
LONG = 60.0


@pytest.mark.parametrize(
    ("standby", "database", "away", "back", "step"),
    [
        (REPLICA, PRIMARY, 0, LONG, None),
        # It is away.
        (REPLICA, None, 1.4, 0, None),
        (REPLICA, None, 1.5, 0, Step.LEAD),
        (PRIMARY, None, LONG, 0, None),
        # A standby that never had a registry.
        (State(False), None, LONG, 0, None),
        # It is back.
        (PRIMARY, PRIMARY, 0, 4.9, None),
        (PRIMARY, PRIMARY, 0, 5, Step.COPY),
        (PRIMARY, State(True), 0, 5, Step.COPY),
        (PRIMARY, REPLICA, 0, 5, None),
        (COPIED, REPLICA, 0, 5, Step.HAND_OVER),
        # It is back with another registry, which was restored.
        (PRIMARY, State(True, "another"), 0, 5, Step.FOLLOW),
        (REPLICA, State(True, "another"), 0, LONG, None),
        # An interrupted hand-over.
        (REPLICA, REPLICA, 0, LONG, Step.RELEASE),
    ],
)
def test_next_step(standby: Any, database: Any, away: float, back: float, step: Any) -> None:
    assert choose_step(standby, database, away, back) == step


class DummyValkey:
    """A primary. It does what it is asked, but gives no answer to the command that makes it a replica."""

    def __init__(self, address: str, user: str) -> None:
        self.address = address
        self.registry = user
        self.binds: list[str] = []

    def read_state(self) -> Any:
        return State(True, self.registry)

    def ask(self, *commands: tuple[str, ...]) -> None:
        for command in commands:
            if command[:3] == ("CONFIG", "SET", "bind"):
                self.binds.append(command[3])
            elif command[0] == "REPLICAOF":
                raise TimeoutError("timed out")


def test_standby_opens_again_if_its_demotion_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    valkeys: dict[str, DummyValkey] = {}

    def connect(address: str, user: str) -> DummyValkey:
        return valkeys.setdefault(user, DummyValkey(address, user))

    monkeypatch.setattr(script, "Valkey", connect)
    monkeypatch.setattr(script, "BACK_AFTER", 0)
    monkeypatch.setattr(script, "CLOSED", 0)
    registry = script.Registry("10.0.0.5", "10.0.0.4")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            registry.keep()  # Their registries differ, so the standby follows.
    assert valkeys["operator"].binds == ["127.0.0.1 10.0.0.4", "127.0.0.1"] * 2
