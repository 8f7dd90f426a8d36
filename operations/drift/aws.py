"""Returns the differences between the state and AWS, from `pulumi refresh` and EC2's API."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import yaml

from operations.drift.findings import CLOUD, AddedRule, Difference
from operations.drift.redaction import redact_passwords
from operations.instances import Instance
from operations.markdown import diff_lines
from operations.resources import IGNORED_INPUTS, find_changed_paths, flatten, format_type, sort_lists
from operations.stack_state import RULE_TYPES, StackState

IMPORTED_PREFIX = "by-hand-"
"""Name prefix of rules that are imported into the state so that the next update deletes them."""


def read_refresh(output: str) -> list[Difference]:
    """Reads `pulumi refresh --preview-only --json`. Compares inputs, and where those are equal the outputs of the same names."""
    found: list[Difference] = []
    for step in json.loads(output).get("steps", []):
        old, new = _read_state(step, "oldState"), _read_state(step, "newState")
        _, _, types, name = step["urn"].split("::", 3)
        kind = format_type(types.rpartition("$")[2])
        if step["op"] == "delete":
            found.append(Difference(CLOUD, name, f"{kind}, deleted", _diff(old.inputs, {})))
        elif step["op"] == "update":
            # The provider leaves the input of a property that AWS rewrites, such as a policy, unchanged.
            lines = _diff(old.inputs, new.inputs) or _diff(old.outputs, new.outputs)
            if lines or not _is_ignored(step):
                lines = lines or ["A secret, or the order of a list, differs."]
                found.append(Difference(CLOUD, name, f"{kind}, changed", lines))
    return sorted(found, key=lambda difference: difference.name)


class _State(NamedTuple):
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    """Those that have the name of an input."""


def _read_state(step: Mapping[str, Any], key: str) -> _State:
    inputs = _get_properties(step, key, "inputs")
    names = _get_properties(step, "oldState", "inputs")
    outputs = {name: value for name, value in _get_properties(step, key, "outputs").items() if name in names}
    return _State(_drop_ignored(inputs), _drop_ignored(outputs))


def _get_properties(step: Mapping[str, Any], key: str, kind: str) -> dict[str, Any]:
    state: dict[str, dict[str, Any]] = step.get(key) or {}
    return state.get(kind, {})


def _drop_ignored(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the properties that the program sets, with all tags as `tags`.

    Version 7 of the provider has the default tags in `tagsAll` only, version 6 in `tags`.
    """
    tracked = {name: value for name, value in properties.items() if name != "__defaults"}
    if all_tags := tracked.pop("tagsAll", None):
        tracked["tags"] = all_tags
    for path in IGNORED_INPUTS:
        parent, _, nested = path.partition(".")
        if not nested:
            tracked.pop(parent, None)
        elif isinstance(tracked.get(parent), dict):
            members = cast(dict[str, Any], tracked[parent]).items()
            tracked[parent] = {name: value for name, value in members if not name.startswith(nested)}
    return tracked


def _is_ignored(step: Mapping[str, Any]) -> bool:
    """True if only ignored inputs differ. False if nothing seems to differ: a secret may."""
    old, new = (dict(flatten("", _get_properties(step, key, "inputs"))) for key in ("oldState", "newState"))
    detailed_diff: dict[str, Any] = step.get("detailedDiff") or {}
    paths = [*detailed_diff] or find_changed_paths(old, new)
    return bool(paths) and all(path.startswith(IGNORED_INPUTS) for path in paths)


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    texts = (yaml.safe_dump(sort_lists(value), width=500) if value else "" for value in (old, new))
    return [redact_passwords(line) for line in diff_lines(*texts)]


def find_stopped(instances: Iterable[Instance]) -> list[Difference]:
    """Returns the stopped machines as differences."""
    return [
        Difference(
            CLOUD,
            instance.name,
            f"Instance, {instance.state}",
            ["-running", f"+{instance.state}"],
            stopped_instance=instance.id,
        )
        for instance in instances
        if instance.is_stopped
    ]


def read_rules(
    state: StackState, described: Iterable[Mapping[str, Any]]
) -> tuple[list[AddedRule], list[Difference]]:
    """Reads `DescribeSecurityGroupRules` of the stack's groups. Returns the rules that are not part of the program."""
    rules: list[AddedRule] = []
    found: list[Difference] = []
    for rule in described:
        id = str(rule["SecurityGroupRuleId"])
        tracked_name = state.rules.get(id)
        if tracked_name is not None and not tracked_name.startswith(IMPORTED_PREFIX):
            continue
        egress = bool(rule["IsEgress"])
        group = state.security_groups[rule["GroupId"]]
        ports = {
            key: rule[key] for key in ("FromPort", "ToPort") if rule["IpProtocol"] != "-1" and key in rule
        }
        peer = {
            key: rule[key] for key in ("CidrIpv4", "CidrIpv6", "PrefixListId", "Description") if key in rule
        }
        if "ReferencedGroupInfo" in rule:
            peer["ReferencedGroupId"] = rule["ReferencedGroupInfo"]["GroupId"]
        lines = _diff({}, {"IpProtocol": rule["IpProtocol"], "SecurityGroup": group, **ports, **peer})
        name = (
            f"{IMPORTED_PREFIX}{'-'.join(str(part) for part in (rule['IpProtocol'], *ports.values()))}-{id}"
        )
        rules.append(AddedRule(id, egress, name, imported=tracked_name is not None))
        found.append(Difference(CLOUD, name, f"{format_type(RULE_TYPES[egress])}, added by hand", lines))
    return rules, found
