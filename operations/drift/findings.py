"""The findings of a drift check."""

from collections.abc import Sequence
from dataclasses import dataclass

CLOUD = "the cloud"
STATE = "the state"


@dataclass(frozen=True)
class Difference:
    """A resource, or the result of a step on a machine, that differs from the state."""

    place: str
    """The machine's name, or CLOUD."""
    name: str
    summary: str
    lines: Sequence[str]
    """A diff, or other lines that explain the difference."""
    steps: tuple[str, ...] = ()
    """URNs of the steps that restore it."""
    stopped_instance: str | None = None
    """Id of a stopped instance. No update starts it."""


@dataclass(frozen=True)
class AddedRule:
    """A security group rule that is not part of the program."""

    id: str
    egress: bool
    name: str
    imported: bool
    """True if the state already tracks it. The next update then deletes it."""


@dataclass(frozen=True)
class Unreachable:
    """A place that could not be checked: a machine, CLOUD or STATE."""

    place: str
    reason: str


@dataclass(frozen=True)
class Drift:
    """The result of a drift check. Differences of the same place are adjacent."""

    differences: Sequence[Difference]
    unreachable: Sequence[Unreachable]
    marking_error: str = ""
    """Why the differences could not be marked in the state for the next update."""

    @property
    def exit_code(self) -> int:
        """2 if something could not be checked or marked, 1 if something differs, otherwise 0."""
        return 2 if self.unreachable or self.marking_error else 1 if self.differences else 0
