"""What a killed run of the engine leaves: its lock, and creations in its state of which nobody saw the end."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Entry = dict[str, Any]
"""A resource, as the state has it."""

MADE_ANEW = frozenset({"aws:ec2/securityGroup:SecurityGroup"})
"""Types of which a refresh does not see that their creation has a second half: AWS lets everything out of a new group."""


@dataclass(frozen=True)
class Lock:
    """Who is at work on a stack; written by the engine into file and bucket backends."""

    pid: int
    user: str
    host: str
    since: str
    path: str

    def __str__(self) -> str:
        return f"{self.path}: created by {self.user}@{self.host} (pid {self.pid}) at {self.since}"


def read_lock(path: str, text: str) -> Lock:
    lock = json.loads(text)
    since = datetime.fromisoformat(lock["timestamp"]).isoformat(timespec="seconds")
    return Lock(lock["pid"], lock["username"], lock["hostname"], since, path)


def in_force(locks: Sequence[Lock], host: str | None, runs: Callable[[int], bool]) -> list[Lock]:
    """Those of processes that run, or may: what goes on at another host cannot be seen from here."""
    return [lock for lock in locks if lock.host != host or runs(lock.pid)]


def resources_of(deployment: Mapping[str, Any]) -> list[Entry]:
    """What the state has; a new stack has nothing."""
    return deployment.get("resources") or []


def pending_creates(deployment: Mapping[str, Any]) -> list[Entry]:
    """Resources whose creation was begun. Components among them are nothing but entries of the state."""
    operations: list[dict[str, Any]] = deployment.get("pending_operations") or []
    begun: list[Entry] = [
        operation["resource"] for operation in operations if operation["type"] == "creating"
    ]
    return [entry for entry in begun if entry["custom"]]


def provider_of(deployment: Mapping[str, Any], entry: Entry) -> Entry | None:
    """The provider resource that an entry names, if the state still has it."""
    urn, _, id = str(entry["provider"]).rpartition("::")
    return next(
        (known for known in resources_of(deployment) if (known["urn"], known.get("id")) == (urn, id)), None
    )


def unknown(deployment: Mapping[str, Any], type: str, ids: Sequence[str]) -> list[str]:
    """Those ids that no resource of the type has. A role and its instance profile may share one: their name."""
    known = {one.get("id") for one in resources_of(deployment) if one["type"] == type}
    return [id for id in ids if id not in known]


def with_made(deployment: Mapping[str, Any], made: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The state with what pending creations have made, ids by URN, and nothing pending any more.

    A resource that the state lacks is taken up; the engine then reads how it is. One that the state has already, or that
    is to be made anew, is marked for deletion: the engine deletes it at the end of the next run, whatever that is.
    """
    resources = [*resources_of(deployment)]
    for entry in pending_creates(deployment):
        for id in made.get(entry["urn"], ()):
            new = _made(entry, id, {known["urn"] for known in resources})
            there = [known for known in resources if known["urn"] == entry["urn"] and not known.get("delete")]
            # Such a one is deleted already, to make room.
            replaced = [known for known in there if known.get("pendingReplacement")]
            if entry["type"] in MADE_ANEW or there != replaced:
                resources.append({**new, "delete": True})
            elif replaced:
                resources[resources.index(replaced[0])] = new
            else:
                resources.append(new)
    return {**deployment, "resources": resources, "pending_operations": []}


def _made(entry: Entry, id: str, urns: set[str]) -> Entry:
    """Its inputs stand for its outputs until the engine has read them: some kinds are found by them, not by their id."""
    inputs: dict[str, Any] = entry.get("inputs", {})
    new = {
        **entry,
        "id": id,
        "outputs": {**{key: value for key, value in inputs.items() if not key.startswith("__")}, "id": id},
    }
    # What it was made from may be gone by now, where runs went on without recovery.
    dependencies: list[str] = entry.get("dependencies", [])
    of_properties: dict[str, list[str] | None] = entry.get("propertyDependencies", {})
    new["dependencies"] = [urn for urn in dependencies if urn in urns]
    new["propertyDependencies"] = {
        key: [urn for urn in named or [] if urn in urns] for key, named in of_properties.items()
    }
    if entry.get("parent") not in urns:
        new.pop("parent", None)
    return new
