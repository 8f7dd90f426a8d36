"""How one kind of AWS resource is described, and what follows from the description.

The description says which inputs exist, which of them take a new resource, and what only AWS can tell; the
functions in it are all that touches the API. Checking, comparing and previewing are the same for all kinds.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox.plugins.aws.client import Cloud, tag_list, told
from sandbox.plugins.aws.policy_documents import equivalent
from sandbox.plugins.properties import UNKNOWN, Properties, Value, differences, has_unknown
from sandbox.plugins.provider import Diff, Failures, NotReadyError, ProviderError, top_level

DEFAULTS = "__defaults"
"""The input that remembers which others the user did not give, under the official provider's name for it."""


def _nothing_to_change(
    cloud: Cloud, resource_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    """For kinds of which nothing but tags can change in place."""


def _ready_at_once(cloud: Cloud, resource_id: str, inputs: Properties) -> None:
    """For kinds that are as they should be as soon as they are created."""


def retag(
    old: Value,
    new: Value,
    untag: Callable[[list[str]], object],
    tag: Callable[[list[dict[str, str]]], object],
) -> None:
    before, after = (tags if isinstance(tags, dict) else {} for tags in (old, new))
    if gone := sorted(before.keys() - after.keys()):
        untag(gone)
    if after:
        tag(tag_list(after))


def retag_in_ec2(cloud: Cloud, resource_id: str, old: Value, new: Value) -> None:
    retag(
        old,
        new,
        lambda keys: cloud.ec2.delete_tags(Resources=[resource_id], Tags=[{"Key": key} for key in keys]),
        lambda tags: cloud.ec2.create_tags(Resources=[resource_id], Tags=tags),
    )


@dataclass(frozen=True)
class Kind:
    """One row of the table of resource kinds."""

    token: str
    called: str
    """What the official provider calls it in messages."""
    create: Callable[[Cloud, Properties], str]
    read: Callable[[Cloud, str, Properties], Properties | None]
    delete: Callable[[Cloud, str, Properties], None]
    update: Callable[[Cloud, str, Properties, Properties, set[str]], None] = _nothing_to_change
    """Takes the cloud, the id, the old state, the new inputs and the names of the inputs that changed."""
    ready: Callable[[Cloud, str, Properties], None] = _ready_at_once
    """Whatever is left to do or to wait for once a resource exists. Where it fails, the next run repeats it."""
    retag: Callable[[Cloud, str, Value, Value], None] = retag_in_ec2
    """Takes the cloud, the id, the old tags and the new ones."""

    replacing: frozenset[str] = frozenset()
    """Inputs (or `input.member`) of which a change takes a new resource."""
    in_place: frozenset[str] = frozenset()
    """Inputs of which a change is applied to the resource that exists."""
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The members of inputs that are objects."""
    member_outputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Further members that only AWS can tell."""
    required: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()
    """Inputs that AWS chooses where they are not given; no longer giving one changes nothing."""
    sets: frozenset[str] = frozenset()
    """Inputs that are lists in no particular order."""
    policies: frozenset[str] = frozenset()
    """Inputs that are policies in JSON, of which only the meaning counts."""
    objections: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    """What is wrong with the value of an input as far as it can be told without asking AWS; empty where nothing is."""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    auto_named: bool = False
    """Whether the physical `name` is made from the logical one where it is not given."""
    taggable: bool = True
    outputs: frozenset[str] = frozenset()
    """What only AWS can tell, and a preview therefore cannot."""
    renewed_by: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Outputs that become others, nobody knows which, with a change of one of these inputs."""
    replaces_if: Mapping[str, str] = field(default_factory=dict)
    """Inputs of which a change takes a new resource where another input says so."""

    @property
    def inputs(self) -> frozenset[str]:
        tops = {top_level(name) for name in self.replacing | self.in_place}
        return frozenset(tops | ({"tags"} if self.taggable else set()))

    # ---- what follows, without asking AWS

    def check(
        self,
        default_tags: Mapping[str, str],
        name: str,
        old: Properties,
        given: Properties,
        seed: bytes = b"",
    ) -> tuple[Properties, Failures]:
        failures: Failures = {}
        for top, value in given.items():
            if top not in self.inputs:
                failures[top] = self._unknown_property()
            elif isinstance(value, dict) and top in self.members:
                failures |= {
                    f"{top}.{key}": self._unknown_property()
                    for key in sorted(value.keys() - self.members[top])
                }
        failures |= dict.fromkeys(sorted(self.required - given.keys()), "Missing required argument")
        filled: Properties = {key: value for key, value in self.defaults.items() if key not in given}
        if self.auto_named and not given.keys() & {"name", "namePrefix"}:
            before = old.get(DEFAULTS)
            kept = old.get("name") if isinstance(before, list) and "name" in before else None
            filled["name"] = kept or f"{name}-{hashlib.sha256(seed).hexdigest()[:7]}"
        checked: Properties = {**given, **filled, DEFAULTS: [*sorted(filled)]}
        for top, objection in self.objections.items():
            if top in checked and not has_unknown(checked[top]) and (wrong := objection(str(checked[top]))):
                failures[top] = wrong
        if self.taggable and default_tags:
            tags = given.get("tags") or {}
            checked["tags"] = {**default_tags, **tags} if isinstance(tags, dict) else tags
        return checked, failures

    def _unknown_property(self) -> str:
        return f"unknown property of {self.token}: the sandbox's aws provider does not have it"

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff:
        paths = self._changes(old_inputs, state, inputs)
        replaces = {path for path in paths if {path, top_level(path)} & self.replacing}
        replaces |= {path for path in paths if inputs.get(self.replaces_if.get(top_level(path), ""))}
        defaults = inputs.get(DEFAULTS)
        named = (
            self.auto_named and "name" in inputs and not (isinstance(defaults, list) and "name" in defaults)
        )
        return Diff(paths, frozenset(replaces), bool(replaces) and named)

    def _changes(
        self, old_inputs: Properties, state: Properties, inputs: Properties
    ) -> dict[str, tuple[Value, Value]]:
        changes: dict[str, tuple[Value, Value]] = {}
        for top in sorted((old_inputs.keys() | inputs.keys()) - {DEFAULTS}):
            old, new = old_inputs.get(top), inputs.get(top)
            if top in self.sets and isinstance(old, list) and isinstance(new, list):
                old, new = sorted(old, key=str), sorted(new, key=str)
            if top in self.policies and equivalent(old, new):
                continue
            if top in self.chosen:
                if new in (None, ""):  # to the official provider an empty text is one that was not given
                    continue
                old = state.get(top) if old is None else old
            for path, before, after in differences(top, old, new):
                aws_chose = top in self.chosen and isinstance(new, dict) and ".tags." not in path
                if after is not None or not aws_chose:
                    changes[path] = (before, after)
        return changes

    def plan(self, region: str, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        known = {key: value for key, value in inputs.items() if key != DEFAULTS}
        if self.taggable:
            known["tagsAll"] = inputs.get("tags") or {}
        base: Properties = state or {
            "region": region,
            **dict.fromkeys(self.outputs | self.chosen, UNKNOWN),
            **{
                name: dict.fromkeys(members | self.member_outputs.get(name, frozenset()), UNKNOWN)
                for name, members in self.members.items()
                if name in inputs
            },
        }
        for name in self.members:
            given, before = known.get(name), base.get(name)
            if isinstance(given, dict) and isinstance(before, dict):
                known[name] = {**before, **given}
        renewed = {
            output: UNKNOWN
            for output, reasons in self.renewed_by.items()
            if any(old_inputs.get(reason) != inputs.get(reason) for reason in reasons)
        }
        return {**base, **known, **renewed}

    # ---- what the API does

    def create_now(self, cloud: Cloud, inputs: Properties) -> tuple[str, Properties]:
        with told(f"creating {self.called}"):
            resource_id = self.create(cloud, inputs)
        state = self._state(cloud, resource_id, inputs)
        try:
            with told(f"waiting for {self.called} ({resource_id}) create"):
                self.ready(cloud, resource_id, inputs)
        except ProviderError as problem:
            raise NotReadyError(str(problem), resource_id, state) from problem
        return resource_id, self._state(cloud, resource_id, inputs)

    def update_now(
        self, cloud: Cloud, resource_id: str, state: Properties, old_inputs: Properties, inputs: Properties
    ) -> Properties:
        changed = {top_level(path) for path in self._changes(old_inputs, state, inputs)}
        with told(f"updating {self.called} ({resource_id})"):
            if "tags" in changed:
                self.retag(cloud, resource_id, state.get("tags"), inputs.get("tags"))
            if changed - {"tags"}:
                self.update(cloud, resource_id, state, inputs, changed)
            if not changed:  # the engine asks nevertheless: the resource never got ready
                self.ready(cloud, resource_id, inputs)
        return self._state(cloud, resource_id, inputs)

    def read_now(self, cloud: Cloud, resource_id: str, state: Properties) -> Properties | None:
        with told(f"reading {self.called} ({resource_id})"):
            found = self.read(cloud, resource_id, state)
        return None if found is None else self._completed(cloud, state, found)

    def delete_now(self, cloud: Cloud, resource_id: str, state: Properties) -> None:
        with told(f"deleting {self.called} ({resource_id})"):
            self.delete(cloud, resource_id, state)

    def inputs_of(self, inputs: Properties, state: Properties) -> Properties:
        names = inputs.keys() if inputs else self.inputs
        found: Properties = {}
        for name in names:
            before, now = inputs.get(name), state.get(name)
            if isinstance(before, dict) and isinstance(now, dict) and name in self.members:
                now = {key: now[key] for key in before if key in now}
            if now is None and name in inputs:
                now = before
            if now is not None and now != "":
                found[name] = now
        return found

    def _state(self, cloud: Cloud, resource_id: str, inputs: Properties) -> Properties:
        with told(f"reading {self.called} ({resource_id})"):
            found = self.read(cloud, resource_id, inputs)
        if found is None:
            raise ProviderError(f"reading {self.called} ({resource_id}): couldn't find resource")
        return self._completed(cloud, inputs, found)

    def _completed(self, cloud: Cloud, known: Properties, found: Properties) -> Properties:
        """What was read, with what AWS does not tell again taken from what was asked for."""
        state = {key: value for key, value in known.items() if key != DEFAULTS} | found
        state["region"] = cloud.region
        if self.taggable:
            state["tagsAll"] = state.get("tags") or {}
        return state
