"""Parsing of `pulumi preview --json`: steps, manual changes and protected resources."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from operations.preview.changes import Preview, parse_preview
from operations.preview.warnings import find_warnings
from operations.resources import INSTANCE
from policy.resource import Resource

PREVIEWS = Path(__file__).parent / "previews"
SETTINGS_ERROR = (
    "Nothing was changed. Correct the configuration of stack dev:\n  ant-media-cluster:domain is not set"
)


def summarize_manual_changes(preview: Preview) -> list[tuple[str, str, tuple[str, ...], str]]:
    return [
        (found.change.name, found.change.op, found.change.changed, found.outcome)
        for found in preview.manual_changes
    ]


def test_manual_changes_are_separate_from_the_steps_of_the_update() -> None:
    preview = parse_preview((PREVIEWS / "changed-by-hand.json").read_text())
    rule = "firewall-load-balancer-rtmp-from-0.0.0.0/0"
    assert summarize_manual_changes(preview) == [
        ("edge1", "update", ("instanceType",), "reverts it"),
        ("edge2", "update", ("tags",), "reverts it"),
        (rule, "delete", (), "recreates it"),
    ]
    assert [(step.name, step.op) for step in preview.steps if step.name in ("edge1", "edge2", rule)] == [
        ("edge1", "update"),
        ("edge2", "update"),
        (rule, "create"),
    ]


def test_terminated_machine_is_recreated() -> None:
    preview = parse_preview((PREVIEWS / "machine-gone.json").read_text())
    assert summarize_manual_changes(preview) == [("edge3", "delete", (), "recreates it")]

    def machines(resources: Sequence[Resource]) -> set[str]:
        return {resource.name for resource in resources if resource.type == INSTANCE}

    assert machines(preview.resources_after) - machines(preview.resources_before) == {"edge3"}
    assert find_warnings(preview.steps) == []


@pytest.mark.parametrize(
    ("op", "old", "new", "outcome"),
    [
        ("same", {"ttl": 60}, {"ttl": 60}, "keeps the change"),
        ("update", {"ttl": 60}, {"ttl": 90}, "changes it"),
        ("replace", {"ttl": 60}, {"ttl": 30}, "replaces it"),
        ("delete", {"ttl": 60}, None, "deletes it"),
        ("create", None, {"ttl": 30}, "recreates it"),
        (None, None, None, "leaves it deleted"),
    ],
)
def test_manual_change_has_outcome(
    op: str | None, old: dict[str, Any] | None, new: dict[str, Any] | None, outcome: str
) -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:route53/record:Record::live"

    def state(inputs: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if inputs is None else {"urn": urn, "custom": True, "inputs": inputs}

    refresh = {"op": "refresh", "urn": urn, "oldState": state({"ttl": 30})}
    step = {"op": op, "urn": urn, "oldState": state(old), "newState": state(new)}
    steps = [{key: value for key, value in step.items() if value}] if op else []
    preview = parse_preview(json.dumps({"steps": [refresh, *steps]}))
    assert [found.outcome for found in preview.manual_changes] == [outcome]


def test_incomplete_preview_reports_no_deleted_resource() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:route53/record:Record::live"
    refresh = {"op": "refresh", "urn": urn, "oldState": {"urn": urn, "custom": True}}
    diagnostics = [{"severity": "error", "message": "error: no"}]
    assert parse_preview(json.dumps({"steps": [refresh], "diagnostics": diagnostics})).manual_changes == []


@pytest.mark.parametrize("tags", ["tags", "tagsAll"])
def test_tags_of_root_volume_are_no_manual_change(tags: str) -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge1"

    def state(size: int, owner: str) -> dict[str, Any]:
        inputs = {"rootBlockDevice": {"volumeSize": size, tags: {"owner": owner}}}
        return {"urn": urn, "custom": True, "inputs": inputs}

    def changed(found: dict[str, Any]) -> list[str]:
        refresh = {"op": "refresh", "urn": urn, "oldState": state(8, "us")}
        same = {"op": "same", "urn": urn, "oldState": found, "newState": state(8, "us")}
        manual_changes = parse_preview(json.dumps({"steps": [refresh, same]})).manual_changes
        return [key for found in manual_changes for key in found.change.changed]

    assert changed(state(8, "them")) == []
    assert changed(state(9, "them")) == ["rootBlockDevice"]


@pytest.mark.parametrize(
    ("recorded", "found", "changed"),
    [
        # Version 6 of the AWS provider merges the default tags into `tags`.
        (
            {"tags": {"Name": "edge1", "owner": "us"}},
            {"tags": {"Name": "edge1", "owner": "them"}},
            ("tags",),
        ),
        # Version 7 merges them into `tagsAll`, and reads a tag with another value than the default into `tags`.
        (
            {"tags": {"Name": "edge1"}, "tagsAll": {"Name": "edge1", "owner": "us"}},
            {
                "tags": {"Name": "edge1", "owner": "them"},
                "tagsAll": {"Name": "edge1", "owner": "them"},
            },
            ("tagsAll", "tags"),
        ),
    ],
)
def test_default_tag_changed_by_hand_is_reverted(
    recorded: dict[str, Any], found: dict[str, Any], changed: tuple[str, ...]
) -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge1"
    states = [{"urn": urn, "custom": True, "inputs": inputs} for inputs in (recorded, found)]
    refresh = {"op": "refresh", "urn": urn, "oldState": states[0]}
    update = {"op": "update", "urn": urn, "oldState": states[1], "newState": states[0]}
    preview = parse_preview(json.dumps({"steps": [refresh, update]}))
    assert summarize_manual_changes(preview) == [("edge1", "update", changed, "reverts it")]


def test_json_format_list_order_and_engine_keys_are_no_manual_change() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:iam/role:Role::role"

    def state(policy: str, groups: list[str]) -> dict[str, Any]:
        inputs = {"policy": policy, "groups": groups, "__defaults": [policy]}
        return {"urn": urn, "custom": True, "inputs": inputs}

    recorded, found = state('{"a": 1, "b": 2}', ["x", "y"]), state('{"b":2,"a":1}', ["y", "x"])
    refresh = {"op": "refresh", "urn": urn, "oldState": recorded}
    same = {"op": "same", "urn": urn, "oldState": found, "newState": recorded}
    assert parse_preview(json.dumps({"steps": [refresh, same]})).manual_changes == []


@pytest.mark.parametrize(
    "diagnostics",
    [
        # A program that ends with an exception, with the official language host and with the sandbox's stand-in.
        [
            ("info#err", f"error: {SETTINGS_ERROR}\n"),
            ("error", "error: an unhandled error occurred: program exited with non-zero exit code: 1\n"),
        ],
        [
            ("info#err", f"error: {SETTINGS_ERROR}\n"),
            ("error", "error: an unhandled error occurred: Program exited with non-zero exit code: 1\n"),
        ],
        # A program that logs its error and ends with exit code 32.
        [("error", f"error: {SETTINGS_ERROR}\n"), ("error", "error: preview failed\n")],
        [("error", f"error: {SETTINGS_ERROR}\n")],
    ],
)
def test_error_is_the_message_of_the_program(diagnostics: list[tuple[str, str]]) -> None:
    lines = [{"severity": severity, "message": message} for severity, message in diagnostics]
    assert parse_preview(json.dumps({"diagnostics": lines})).error == SETTINGS_ERROR


def test_generic_error_is_reported_when_there_is_no_other() -> None:
    message = "an unhandled error occurred: program exited with non-zero exit code: 137"
    diagnostic = {"severity": "error", "message": f"error: {message}\n"}
    assert parse_preview(json.dumps({"diagnostics": [diagnostic]})).error == message


@pytest.mark.parametrize(
    "refusal",
    [
        'unable to replace resource "urn:pulumi:prod::p::a:b:C$aws:ec2/eip:Eip::load-balancer-ip"\nas it is currently marked'
        " for protection. To unprotect the resource, remove the `protect` flag",
        'unable to replace resource "urn:pulumi:prod::p::aws:ec2/eip:Eip::load-balancer-ip" as part of replacing '
        '"urn:pulumi:prod::p::aws:ec2/vpc:Vpc::vpc" as it is currently marked for protection.',
        'Preview failed: resource "urn:pulumi:prod::p::aws:ec2/eip:Eip::load-balancer-ip" cannot be deleted\n'
        "because it is protected. To unprotect the resource",
    ],
)
def test_protected_resource_is_found_in_the_error(refusal: str) -> None:
    diagnostic = {"severity": "error", "message": f"error: {refusal}\n"}
    assert parse_preview(json.dumps({"diagnostics": [diagnostic]})).protected == ["load-balancer-ip"]


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (
            "urn:pulumi:dev::p::pulumi:providers:aws::default_7_51_1::1",
            {"defaultTags": '{"tags":{"owner":"x"}}'},
        ),
        (
            "urn:pulumi:dev::p::pulumi:providers:aws::in-another-region::1",
            {"defaultTags": '{"tags":{"owner":"y"}}'},
        ),
        ("urn:pulumi:dev::p::pulumi:providers:command::default_1_2_1::1", {}),
    ],
    ids=["default provider", "provider in the program", "another provider"],
)
def test_resources_have_the_default_tags_of_their_provider(provider: str, expected: dict[str, str]) -> None:
    # Provider 7 does not show default tags among the inputs of security group rules.
    urn = "urn:pulumi:dev::p::aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::rule"
    state = {"urn": urn, "custom": True, "provider": provider, "inputs": {"fromPort": 22}}
    other_provider = {
        "urn": "urn:pulumi:dev::p::pulumi:providers:aws::in-another-region",
        "custom": True,
        "inputs": {"defaultTags": '{"tags":{"owner":"y"}}'},
    }
    document = {
        "config": {"aws:defaultTags": '{"tags":{"owner":"x"}}'},
        "steps": [
            {"op": "same", "urn": one["urn"], "oldState": one, "newState": one}
            for one in (other_provider, state)
        ],
    }
    *_, resource = parse_preview(json.dumps(document)).resources_after
    assert (resource.name, resource.provider) == ("rule", expected)
