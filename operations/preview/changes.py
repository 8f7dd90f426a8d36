"""Parses `pulumi preview --json` into the changes, the manual changes and the resources of a stack.

Reads only the inputs of the steps, the error messages and `aws:defaultTags`, never the rest of the configuration or the
outputs of resources: those may hold secrets.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from operations.resources import (
    IGNORED_INPUTS,
    REMOTE_COMMAND,
    find_changed_paths,
    flatten,
    parse_script,
    sort_lists,
)
from policy.resource import UNKNOWN, Resource

_ENGINE_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the engine writes for a value that is known only after the update."""

_COMMANDS = (REMOTE_COMMAND, "command:local:Command")


@dataclass(frozen=True)
class Step:
    """A change to one resource. Components have no steps."""

    op: str
    """One of create, update, replace, delete and import."""
    type: str
    name: str
    component: str
    """Class name of the component that contains the resource; empty at the top level."""
    old: Mapping[str, Any]
    """Inputs before the update."""
    new: Mapping[str, Any]
    """Inputs after the update."""
    changed: tuple[str, ...] = ()
    """Properties that change; empty when the resource is replaced because another one is."""
    replace_reasons: tuple[str, ...] = ()
    """Changed properties that require a replacement."""
    tainted: bool = False
    """True if the resource is replaced because `make drift` or `pulumi state taint` marked it in the state."""

    @property
    def is_command(self) -> bool:
        return self.type in _COMMANDS

    @cached_property
    def script(self) -> tuple[str, list[str]]:
        """Name and arguments of the script that a `RemoteScript` runs."""
        return parse_script(self.new)


@dataclass(frozen=True)
class ManualChange:
    """A resource that was changed or deleted in the cloud since the last update."""

    change: Step
    """An update or a delete, from the state to the cloud."""
    outcome: str
    """What the previewed update does to the resource."""


@dataclass(frozen=True)
class Preview:
    steps: Sequence[Step]
    """Sorted, because the engine's order varies."""
    error: str
    """Why the preview failed; empty when it succeeded."""
    manual_changes: Sequence[ManualChange] = ()
    resources_before: Sequence[Resource] = ()
    """The whole stack as it exists in the cloud."""
    resources_after: Sequence[Resource] = ()
    """The whole stack as it would be after the update."""
    protected: Sequence[str] = ()
    """Protected resources that the update would replace or delete. The engine then reports an error too."""
    warnings: Sequence[str] = ()
    """The program's warnings, such as stopped machines that an update would need."""


def parse_preview(text: str) -> Preview:
    """Parses the output of `pulumi preview --json --show-sames`.

    Without `--show-sames`, unchanged resources are missing from the manual changes and from the resources before and
    after. Raises `ValueError` when the engine failed before it wrote JSON.
    """
    document: dict[str, Any] = json.loads(text.replace(_ENGINE_UNKNOWN, UNKNOWN))
    all_steps = [step for step in document.get("steps", []) if _latest_state(step)["custom"]]
    # The engine first refreshes every resource in the state, then compares it with the program.
    refreshes = {step["urn"]: step for step in all_steps if step["op"] == "refresh"}
    steps = [step for step in all_steps if step["op"] != "refresh"]
    diagnostics = document.get("diagnostics", [])
    error = _find_error(diagnostics)
    manual_changes = _find_manual_changes(refreshes, steps, complete=not error)
    # The engine writes no step for a default provider, which gets its inputs from the configuration.
    default_provider = {"defaultTags": document.get("config", {}).get("aws:defaultTags")}
    providers = {
        step["urn"]: _latest_state(step).get("inputs", {})
        for step in steps
        if "::pulumi:providers:" in step["urn"]
    }

    def parse_resource(step: Mapping[str, Any], state: Mapping[str, Any]) -> Resource:
        urn = state.get("provider", "").rpartition("::")[0]
        is_default = "::pulumi:providers:aws::default" in urn
        return _parse_resource(step["urn"], state, default_provider if is_default else providers.get(urn, {}))

    return Preview(
        steps=sorted((_parse_step(step) for step in steps if step["op"] in _OPS), key=_sort_key),
        error=error,
        manual_changes=sorted(manual_changes, key=lambda found: _sort_key(found.change)),
        resources_before=[parse_resource(step, step["oldState"]) for step in steps if step.get("oldState")],
        resources_after=[parse_resource(step, step["newState"]) for step in steps if step.get("newState")],
        protected=_find_protected(diagnostics),
        warnings=[" ".join(line["message"].split()) for line in diagnostics if line["severity"] == "warning"],
    )


_OPS = ("create", "update", "replace", "delete", "import")


def _latest_state(step: Mapping[str, Any]) -> Mapping[str, Any]:
    return step.get("newState") or step["oldState"]


def _parse_step(step: Mapping[str, Any]) -> Step:
    old: Mapping[str, Any] = step.get("oldState") or {}
    new: Mapping[str, Any] = step.get("newState") or {}
    *components, type, name = _split_urn(step["urn"])
    tainted = bool(old.get("taint")) and step["op"] == "replace"
    return Step(
        op=step["op"],
        type=type,
        name=name,
        component=components[0].rpartition(":")[2] if components else "",
        old=old.get("inputs", {}),
        new=new.get("inputs", {}),
        changed=tuple(step.get("diffReasons") or ()),
        # For a tainted resource the engine gives "id" as the reason.
        replace_reasons=() if tainted else tuple(step.get("replaceReasons") or ()),
        tainted=tainted,
    )


def _split_urn(urn: str) -> list[str]:
    """Returns the types of the enclosing components, then the resource's type and name."""
    _, _, types, name = urn.split("::", 3)
    return [*types.split("$"), name]


def _parse_resource(urn: str, state: Mapping[str, Any], provider: Mapping[str, Any]) -> Resource:
    *_, type, name = _split_urn(urn)
    return Resource(
        type,
        name,
        state.get("inputs", {}),
        state.get("protect", False),
        {
            key: [_split_urn(urn)[-1] for urn in urns or ()]
            for key, urns in state.get("propertyDependencies", {}).items()
        },
        provider,
    )


def _find_manual_changes(
    refreshes: Mapping[str, Mapping[str, Any]], steps: Sequence[Mapping[str, Any]], complete: bool
) -> Iterator[ManualChange]:
    """Compares each refresh with the program's step of the same resource, whose old state is what the refresh found.

    `complete` is False when the preview stopped early: a resource without a step may still exist then.
    """
    # A renamed resource is refreshed under its old URN.
    steps_by_urn = {step.get("oldState", {}).get("urn", step["urn"]): step for step in steps}
    for urn, refresh in refreshes.items():
        step = steps_by_urn.get(urn, {})
        recorded, found = sort_lists(refresh["oldState"]), sort_lists(step.get("oldState"))
        if found is None:
            if step or complete:
                yield ManualChange(
                    _parse_step({"op": "delete", "urn": urn, "oldState": recorded}),
                    "recreates it" if step else "leaves it deleted",
                )
            continue
        before, now = _flatten_inputs(recorded), _flatten_inputs(found)
        paths = [path for path in find_changed_paths(before, now) if not path.startswith(IGNORED_INPUTS)]
        if paths:
            properties = dict.fromkeys(re.split(r"[.\[]", path)[0] for path in paths)
            change = {
                "op": "update",
                "urn": urn,
                "oldState": recorded,
                "newState": found,
                "diffReasons": properties,
            }
            after = _flatten_inputs(sort_lists(step.get("newState", {})))
            reverts = all(after.get(path) == before.get(path) for path in paths)
            outcomes = {"replace": "replaces it", "delete": "deletes it", "same": "keeps the change"}
            yield ManualChange(
                _parse_step(change), outcomes.get(step["op"], "reverts it" if reverts else "changes it")
            )


def _flatten_inputs(state: Mapping[str, Any]) -> dict[str, object]:
    return dict(flatten("", state.get("inputs", {})))


def _find_protected(diagnostics: Iterable[Mapping[str, str]]) -> list[str]:
    pattern = re.compile(
        r'resource "[^"]*::([^":]+)"(?: as part of .*)?\s+(?:as it is currently marked for protection|cannot be deleted\s+because it is protected)'
    )
    return [match[1] for line in diagnostics for match in [pattern.search(line["message"])] if match]


def _sort_key(step: Step) -> tuple[object, ...]:
    """Sorts edge2 before edge10."""
    parts = re.split(r"(\d+)", step.name)
    return (
        step.component,
        step.is_command,
        [int(part) if part.isdecimal() else part for part in parts],
        step.type,
    )


_GENERIC_ERRORS = ("program exited with non-zero exit code", "error: preview failed")
"""In lower case: the official language host writes "program", others write "Program"."""


def _find_error(diagnostics: Iterable[Mapping[str, str]]) -> str:
    """Returns the program's error messages, or the engine's generic ones when there are no others."""
    errors = [line for line in diagnostics if line["severity"] in ("error", "info#err")]
    if not any(line["severity"] == "error" for line in errors):
        return ""
    specific = [
        line for line in errors if not any(words in line["message"].lower() for words in _GENERIC_ERRORS)
    ]
    return (
        "\n".join(line["message"].rstrip("\n") for line in specific or errors)
        .strip("\n")
        .removeprefix("error: ")
    )
