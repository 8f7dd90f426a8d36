"""The description of an AWS resource type, and the provider operations that follow from it.

A description lists the inputs, the inputs whose change requires a replacement, and the outputs that only AWS knows. Only
its functions call the API. Check, diff and preview are the same for all types.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox.plugins.aws.client import AwsClient, to_tag_list, translate_errors
from sandbox.plugins.aws.policy_documents import equivalent
from sandbox.plugins.properties import UNKNOWN, Properties, Value, contains_unknown, find_differences
from sandbox.plugins.provider import Diff, Failures, ProviderError, ResourceInitFailedError, top_level

DEFAULTS = "__defaults"
"""The input with the names of the inputs that have default values, named as in the official provider."""


def _update_nothing(
    client: AwsClient, resource_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    """The update of types whose tags alone can change in place."""


def _finish_nothing(client: AwsClient, resource_id: str, inputs: Properties) -> None:
    """The default for types that are ready when they are created."""


def update_tags(
    old: Value,
    new: Value,
    untag: Callable[[list[str]], object],
    tag: Callable[[list[dict[str, str]]], object],
) -> None:
    """Removes the old tags that the new ones lack, and sets the new ones."""
    before, after = (tags if isinstance(tags, dict) else {} for tags in (old, new))
    if removed := sorted(before.keys() - after.keys()):
        untag(removed)
    if after:
        tag(to_tag_list(after))


def update_ec2_tags(client: AwsClient, resource_id: str, old: Value, new: Value) -> None:
    """Updates the tags of an EC2 resource."""
    update_tags(
        old,
        new,
        lambda keys: client.ec2.delete_tags(Resources=[resource_id], Tags=[{"Key": key} for key in keys]),
        lambda tags: client.ec2.create_tags(Resources=[resource_id], Tags=tags),
    )


@dataclass(frozen=True)
class AwsResourceType:
    """The description of one resource type."""

    token: str
    label: str
    """The type's name in the official provider's messages."""
    create: Callable[[AwsClient, Properties], "str | tuple[str, Properties]"]
    """Returns the id, and the outputs that AWS never returns again."""
    read: Callable[[AwsClient, str, Properties], Properties | None]
    delete: Callable[[AwsClient, str, Properties], None]
    update: Callable[[AwsClient, str, Properties, Properties, set[str]], None] = _update_nothing
    """Takes the client, the id, the old state, the new inputs and the names of the changed inputs."""
    finish_create: Callable[[AwsClient, str, Properties], None] = _finish_nothing
    """Waits and sets what the create request cannot set. If it fails, the next run repeats it."""
    update_tags: Callable[[AwsClient, str, Value, Value], None] = update_ec2_tags
    """Takes the client, the id, the old tags and the new ones."""

    replace_on_change: frozenset[str] = frozenset()
    """Inputs (or `input.property`) whose change requires a replacement."""
    update_on_change: frozenset[str] = frozenset()
    """Inputs whose change updates the resource in place."""
    nested_inputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The properties of inputs that are objects."""
    nested_outputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Further properties of those objects, which only AWS knows."""
    required: frozenset[str] = frozenset()
    chosen_by_aws: frozenset[str] = frozenset()
    """Optional inputs for which AWS chooses a value. Removing one from the program changes nothing."""
    unordered: frozenset[str] = frozenset()
    """List inputs whose order is irrelevant."""
    policy_inputs: frozenset[str] = frozenset()
    """Inputs that are JSON policies, which are compared by meaning. A refresh changes their outputs, but not their inputs."""
    validators: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    """Functions that check an input without calling AWS. They return the error, empty for a valid value."""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    auto_named: bool = False
    """Whether a missing `name` is derived from the resource's name in the program."""
    taggable: bool = True
    plugin_framework: bool = False
    """Whether the type has no `tagsAll` among its inputs: Terraform's plugin framework adds the default tags later."""
    outputs: frozenset[str] = frozenset()
    """Outputs that only AWS knows; they are unknown in a preview."""
    outputs_changed_by: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Outputs that become unknown when one of these inputs changes."""
    replace_if: Mapping[str, str] = field(default_factory=dict)
    """Inputs whose change requires a replacement if the named boolean input is true."""

    @property
    def inputs(self) -> frozenset[str]:
        """The names of all inputs."""
        tops = {top_level(name) for name in self.replace_on_change | self.update_on_change}
        return frozenset(tops | ({"tags"} if self.taggable else set()))

    # ---- operations without API calls

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
            elif isinstance(value, dict) and top in self.nested_inputs:
                failures |= {
                    f"{top}.{key}": self._unknown_property()
                    for key in sorted(value.keys() - self.nested_inputs[top])
                }
        failures |= dict.fromkeys(sorted(self.required - given.keys()), "Missing required argument")
        filled: Properties = {key: value for key, value in self.defaults.items() if key not in given}
        if self.auto_named and not given.keys() & {"name", "namePrefix"}:
            before = old.get(DEFAULTS)
            old_name = old.get("name") if isinstance(before, list) and "name" in before else None
            filled["name"] = old_name or f"{name}-{hashlib.sha256(seed).hexdigest()[:7]}"
        checked: Properties = {**given, **filled, DEFAULTS: [*sorted(filled)]}
        for top, validator in self.validators.items():
            if (
                top in checked
                and not contains_unknown(checked[top])
                and (error := validator(str(checked[top])))
            ):
                failures[top] = error
        if self.taggable and not self.plugin_framework:
            checked["tagsAll"] = merge_tags(default_tags, given)
        return checked, failures

    def _unknown_property(self) -> str:
        return f"unknown property of {self.token}: the sandbox's aws provider does not support it"

    def diff(
        self,
        default_tags: Mapping[str, str],
        old_inputs: Properties,
        state: Properties,
        inputs: Properties,
    ) -> Diff:
        paths = self._find_changes(default_tags, old_inputs, state, inputs)
        replaces = {path for path in paths if {path, top_level(path)} & self.replace_on_change}
        replaces |= {path for path in paths if inputs.get(self.replace_if.get(top_level(path), ""))}
        defaults = inputs.get(DEFAULTS)
        # Two resources cannot have the same name, so a name from the program is freed first.
        has_fixed_name = (
            self.auto_named and "name" in inputs and not (isinstance(defaults, list) and "name" in defaults)
        )
        return Diff(paths, frozenset(replaces), bool(replaces) and has_fixed_name)

    def _find_changes(
        self,
        default_tags: Mapping[str, str],
        old_inputs: Properties,
        state: Properties,
        inputs: Properties,
    ) -> dict[str, tuple[Value, Value]]:
        """Returns the changed property paths with their old and new values."""
        changes: dict[str, tuple[Value, Value]] = {}
        if self.taggable:
            tags = find_differences("tagsAll", state.get("tagsAll") or {}, merge_tags(default_tags, inputs))
            changes |= {path: (before, after) for path, before, after in tags}
        for top in sorted((old_inputs.keys() | inputs.keys()) - {DEFAULTS, "tagsAll"}):
            old, new = old_inputs.get(top), inputs.get(top)
            if top in self.unordered and isinstance(old, list) and isinstance(new, list):
                old, new = sorted(old, key=str), sorted(new, key=str)
            if top in self.policy_inputs:
                old = state.get(top)
                if equivalent(old, new):
                    continue
            if top in self.chosen_by_aws:
                if new in (None, ""):  # the official provider treats an empty text as absent
                    continue
                old = state.get(top) if old is None else old
            for path, before, after in find_differences(top, old, new):
                is_chosen_by_aws = (
                    top in self.chosen_by_aws and isinstance(new, dict) and ".tags." not in path
                )
                if after is not None or not is_chosen_by_aws:
                    changes[path] = (before, after)
        return changes

    def preview_outputs(
        self,
        region: str,
        default_tags: Mapping[str, str],
        state: Properties,
        old_inputs: Properties,
        inputs: Properties,
    ) -> Properties:
        known = {key: value for key, value in inputs.items() if key != DEFAULTS}
        if self.taggable:
            known["tagsAll"] = merge_tags(default_tags, inputs)
        base: Properties = state or {
            "region": region,
            **dict.fromkeys(self.outputs | self.chosen_by_aws, UNKNOWN),
            **{
                name: dict.fromkeys(nested | self.nested_outputs.get(name, frozenset()), UNKNOWN)
                for name, nested in self.nested_inputs.items()
                if name in inputs
            },
        }
        for name in self.nested_inputs:
            given, before = known.get(name), base.get(name)
            if isinstance(given, dict) and isinstance(before, dict):
                known[name] = {**before, **given}
        changed = {
            output: UNKNOWN
            for output, reasons in self.outputs_changed_by.items()
            if any(old_inputs.get(reason) != inputs.get(reason) for reason in reasons)
        }
        return {**base, **known, **changed}

    # ---- operations that call the API

    def create_resource(self, client: AwsClient, inputs: Properties) -> tuple[str, Properties]:
        with translate_errors(f"creating {self.label}"):
            created = self.create(client, inputs)
        resource_id, once = created if isinstance(created, tuple) else (created, {})
        state = self._read_state(client, resource_id, {**inputs, **once})
        try:
            with translate_errors(f"waiting for {self.label} ({resource_id}) create"):
                self.finish_create(client, resource_id, inputs)
        except ProviderError as problem:
            raise ResourceInitFailedError(str(problem), resource_id, state) from problem
        return resource_id, self._read_state(client, resource_id, {**inputs, **once})

    def update_resource(
        self,
        client: AwsClient,
        resource_id: str,
        state: Properties,
        old_inputs: Properties,
        inputs: Properties,
    ) -> Properties:
        tags = {"tags", "tagsAll"}
        found = self._find_changes(client.default_tags, old_inputs, state, inputs)
        changed = {top_level(path) for path in found}
        with translate_errors(f"updating {self.label} ({resource_id})"):
            if changed & tags:
                new_tags: Value = {**client.merge_tags(inputs.get("tags"))}
                self.update_tags(client, resource_id, state.get("tagsAll"), new_tags)
            if changed - tags:
                self.update(client, resource_id, state, inputs, changed)
            if not changed:  # an update without changes follows a failed finish_create
                self.finish_create(client, resource_id, inputs)
        return self._read_state(client, resource_id, inputs)

    def read_resource(self, client: AwsClient, resource_id: str, state: Properties) -> Properties | None:
        with translate_errors(f"reading {self.label} ({resource_id})"):
            found = self.read(client, resource_id, state)
        return None if found is None else self._merge_state(client, state, found)

    def delete_resource(self, client: AwsClient, resource_id: str, state: Properties) -> None:
        with translate_errors(f"deleting {self.label} ({resource_id})"):
            self.delete(client, resource_id, state)

    def inputs_from_state(self, inputs: Properties, state: Properties) -> Properties:
        names = inputs.keys() if inputs else self.inputs
        found: Properties = {}
        for name in names:
            before, now = inputs.get(name), state.get(name)
            if isinstance(before, dict) and isinstance(now, dict) and name in self.nested_inputs:
                now = {key: now[key] for key in before if key in now}
            if name in inputs and (now is None or name in self.policy_inputs):
                now = before
            if now is not None and now != "":
                found[name] = now
        return found

    def _read_state(self, client: AwsClient, resource_id: str, inputs: Properties) -> Properties:
        with translate_errors(f"reading {self.label} ({resource_id})"):
            found = self.read(client, resource_id, inputs)
        if found is None:
            raise ProviderError(f"reading {self.label} ({resource_id}): couldn't find resource")
        return self._merge_state(client, inputs, found)

    def _merge_state(self, client: AwsClient, known: Properties, found: Properties) -> Properties:
        """Returns the state read, with the given inputs that AWS does not return."""
        state = {key: value for key, value in known.items() if key != DEFAULTS} | found
        state["region"] = client.region
        if self.taggable:
            state["tagsAll"] = state["tags"]
            state["tags"] = client.own_tags(state["tags"], known.get("tags"))
        return state


def merge_tags(default_tags: Mapping[str, str], inputs: Properties) -> Value:
    """Returns the merged tags, unknown as a whole if a part of them is unknown."""
    tags = inputs.get("tags") or {}
    return {**default_tags, **tags} if isinstance(tags, dict) and not contains_unknown(tags) else UNKNOWN
