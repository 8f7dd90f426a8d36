"""The states of a stack's machines at AWS."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from operations.stack_state import StackState


@dataclass(frozen=True)
class Instance:
    """A machine, by its name in the stack."""

    name: str
    id: str
    state: str
    """As AWS names it, or `terminated` if AWS no longer lists it."""

    @property
    def is_stopped(self) -> bool:
        """True if somebody stopped it. An update then ends before it changes anything."""
        return self.state in ("stopping", "stopped")


def read_instances(state: StackState, described: Iterable[Mapping[str, Any]]) -> list[Instance]:
    """Reads `DescribeInstances`. Returns all instances of the stack."""
    states = {str(one["InstanceId"]): str(one["State"]["Name"]) for one in described}
    return [Instance(name, id, states.get(id, "terminated")) for id, name in state.instances.items()]


def start_command(ids: Iterable[str]) -> str:
    """Returns the command that starts stopped instances."""
    return shlex.join(["aws", "ec2", "start-instances", "--instance-ids", *ids])
