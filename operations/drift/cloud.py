"""Finds differences between the state and the cloud, in what Pulumi and AWS report."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import yaml

from operations.deployment import RULE_TYPES, Deployment
from operations.drift.findings import CLOUD, AddedRule, Difference
from operations.drift.redaction import redact_passwords
from operations.markdown import diff_lines
from operations.resources import UNTRACKED_INPUT, find_changed_paths, flatten, format_type

IMPORTED_PREFIX = "by-hand-"
"""Name prefix of rules that are imported into the state so that the next update deletes them."""


def read_refresh(output: str) -> list[Difference]:
    """Reads `pulumi refresh --preview-only --json`. Compares inputs only."""
    found: list[Difference] = []
    for step in json.loads(output).get("steps", []):
        old, new = _inputs(step.get("oldState")), _inputs(step.get("newState"))
        _, _, types, name = step["urn"].split("::", 3)
        kind = format_type(types.rpartition("$")[2])
        if step["op"] == "delete":
            found.append(Difference(CLOUD, name, f"{kind}, deleted", _diff(old, {})))
        elif step["op"] == "update" and not _is_untracked(old, new):
            lines = _diff(old, new) or ["A secret, or the order of a list, differs."]
            found.append(Difference(CLOUD, name, f"{kind}, changed", lines))
    return sorted(found, key=lambda difference: difference.name)


def _inputs(resource: Mapping[str, Any] | None) -> dict[str, Any]:
    inputs: dict[str, Any] = (resource or {}).get("inputs", {})
    return {key: value for key, value in inputs.items() if key != "__defaults"}


def _is_untracked(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """True if only untracked inputs differ. False if nothing seems to differ: a secret may."""
    paths = find_changed_paths(dict(flatten("", old)), dict(flatten("", new)))
    return bool(paths) and all(path.startswith(UNTRACKED_INPUT) for path in paths)


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    texts = (yaml.safe_dump(_sort_lists(value), width=500) if value else "" for value in (old, new))
    return [redact_passwords(line) for line in diff_lines(*texts)]


def _sort_lists(value: Any) -> Any:
    """Sorts all lists, because AWS returns most of them in any order."""
    match value:
        case dict():
            return {key: _sort_lists(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            items = map(_sort_lists, cast(list[Any], value))
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
        case _:
            return value


def read_instances(
    deployment: Deployment, reservations: Iterable[Mapping[str, Any]]
) -> tuple[set[str], list[Difference]]:
    """Reads `DescribeInstances`. Returns the names of all machines that do not run, and the stopped ones as differences."""
    states = {
        str(instance["InstanceId"]): str(instance["State"]["Name"])
        for reservation in reservations
        for instance in reservation["Instances"]
    }
    stopped = [
        Difference(
            CLOUD,
            deployment.instances[id],
            f"Instance, {state}",
            [
                "-running",
                f"+{state}",
                "An update does not start it, and fails at it after minutes. Before the next update, run:",
                f"aws ec2 start-instances --instance-ids {id}",
            ],
            restorable=False,
        )
        for id, state in states.items()
        if state in ("stopping", "stopped")
    ]
    return {name for id, name in deployment.instances.items() if states.get(id) != "running"}, stopped


def read_rules(
    deployment: Deployment, described: Iterable[Mapping[str, Any]]
) -> tuple[list[AddedRule], list[Difference]]:
    """Reads `DescribeSecurityGroupRules` of the stack's groups. Returns the rules that are not part of the program."""
    rules: list[AddedRule] = []
    found: list[Difference] = []
    for rule in described:
        id = str(rule["SecurityGroupRuleId"])
        tracked_name = deployment.rules.get(id)
        if tracked_name is not None and not tracked_name.startswith(IMPORTED_PREFIX):
            continue
        egress = bool(rule["IsEgress"])
        group = deployment.security_groups[rule["GroupId"]]
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
