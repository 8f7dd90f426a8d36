"""What of a preview people will notice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from operations.preview.changes import Notice, Preview, Step, notices, read_preview
from policy.rules import Resource

PREVIEWS = Path(__file__).parent / "previews"
CUT_OFF = "who publishes to it or watches through it is cut off"


def recorded(name: str) -> list[Notice]:
    return notices(read_preview((PREVIEWS / f"{name}.json").read_text()).steps)


@pytest.mark.parametrize("name", ["nothing", "third-edge", "new-stack", "wrong-settings"])
def test_nobody_is_warned_of_what_only_adds(name: str) -> None:
    assert recorded(name) == []


def test_a_node_that_goes_is_drained_and_destroyed() -> None:
    assert recorded("third-edge-goes") == [
        Notice(("edge3",), f"the machine is destroyed: {CUT_OFF}, and what it recorded is lost"),
        Notice(("edge3",), "leaves haproxy.cfg: nobody new is sent to it"),
    ]


def test_another_instance_type_stops_the_machines() -> None:
    assert recorded("larger-edges") == [
        Notice(("edge1", "edge2"), f"the machine stops and starts: {CUT_OFF}", ("instanceType",))
    ]


def test_another_type_of_the_load_balancer_stops_everything() -> None:
    everybody = "nobody can publish, watch or administer meanwhile"
    assert recorded("larger-balancer") == [
        Notice(("load-balancer",), f"the machine stops and starts: {everybody}", ("instanceType",))
    ]


def test_another_domain_loses_its_record_and_needs_a_certificate() -> None:
    assert [(notice.names, notice.what.partition(":")[0]) for notice in recorded("another-domain")] == [
        (("load-balancer-record-live.ant-media.test",), "the DNS record is deleted"),
        (
            ("service-certificate",),
            "another certificate is asked for, and the authority limits how often; HAProxy serves the one it has until then",
        ),
    ]


def test_another_host_key_seed_replaces_every_machine_the_load_balancer_and_the_database_first() -> None:
    lost = ", and what it recorded is lost"
    assert recorded("new-secrets") == [
        Notice(
            ("load-balancer",),
            "the machine is replaced: nobody can publish, watch or administer meanwhile",
            ("userData",),
        ),
        Notice(
            ("database",),
            "the machine is replaced: nodes do not find each other meanwhile, and what it holds is lost",
            ("userData",),
        ),
        Notice(
            ("edge1", "edge2", "edge3", "origin1", "origin2"),
            f"the machine is replaced: {CUT_OFF}{lost}",
            ("userData",),
        ),
        Notice(("load-balancer-ip",), "Elastic IP association replaced"),
    ]


# What is not as the last update left it

INSTANCE = "aws:ec2/instance:Instance"


def by_hand(preview: Preview) -> list[tuple[str, str, tuple[str, ...], str]]:
    return [
        (found.change.name, found.change.op, found.change.changed, found.then) for found in preview.by_hand
    ]


def test_what_was_changed_by_hand_is_told_from_what_the_update_does() -> None:
    preview = read_preview((PREVIEWS / "changed-by-hand.json").read_text())
    rule = "firewall-load-balancer-rtmp-from-0.0.0.0/0"
    assert by_hand(preview) == [
        ("edge1", "update", ("instanceType",), "changes it back"),
        ("edge2", "update", ("tags",), "changes it back"),
        (rule, "delete", (), "creates it again"),
    ]
    assert [(step.name, step.op) for step in preview.steps if step.name in ("edge1", "edge2", rule)] == [
        ("edge1", "update"),
        ("edge2", "update"),
        (rule, "create"),
    ]


def test_a_machine_that_was_terminated_by_hand_is_missing_before_and_there_after() -> None:
    preview = read_preview((PREVIEWS / "machine-gone.json").read_text())
    assert by_hand(preview) == [("edge3", "delete", (), "creates it again")]

    def machines(resources: Sequence[Resource]) -> set[str]:
        return {resource.name for resource in resources if resource.type == INSTANCE}

    assert machines(preview.after) - machines(preview.before) == {"edge3"}
    assert notices(preview.steps) == []


@pytest.mark.parametrize(
    ("op", "old", "new", "then"),
    [
        ("same", {"ttl": 60}, {"ttl": 60}, "leaves it so"),
        ("update", {"ttl": 60}, {"ttl": 90}, "changes it"),
        ("replace", {"ttl": 60}, {"ttl": 30}, "replaces it"),
        ("delete", {"ttl": 60}, None, "deletes it"),
        ("create", None, {"ttl": 30}, "creates it again"),
        (None, None, None, "leaves it so"),
    ],
)
def test_it_is_said_what_the_update_does_about_it(
    op: str | None, old: dict[str, Any] | None, new: dict[str, Any] | None, then: str
) -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:route53/record:Record::live"

    def state(inputs: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if inputs is None else {"urn": urn, "custom": True, "inputs": inputs}

    held = {"op": "refresh", "urn": urn, "oldState": state({"ttl": 30})}
    step = {"op": op, "urn": urn, "oldState": state(old), "newState": state(new)}
    wanted = [{key: value for key, value in step.items() if value}] if op else []
    preview = read_preview(json.dumps({"steps": [held, *wanted]}))
    assert [found.then for found in preview.by_hand] == [then]


def test_a_preview_that_stopped_midway_takes_nothing_for_gone() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:route53/record:Record::live"
    held = {"op": "refresh", "urn": urn, "oldState": {"urn": urn, "custom": True}}
    stopped = [{"severity": "error", "message": "error: no"}]
    assert read_preview(json.dumps({"steps": [held], "diagnostics": stopped})).by_hand == []


def test_the_tags_of_a_volume_are_not_the_program_s_and_no_change() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge1"

    def state(size: int, owner: str) -> dict[str, Any]:
        inputs = {"rootBlockDevice": {"volumeSize": size, "tags": {"owner": owner}}}
        return {"urn": urn, "custom": True, "inputs": inputs}

    def changed(found: dict[str, Any]) -> list[str]:
        held = {"op": "refresh", "urn": urn, "oldState": state(8, "us")}
        same = {"op": "same", "urn": urn, "oldState": found, "newState": state(8, "us")}
        by_hand = read_preview(json.dumps({"steps": [held, same]})).by_hand
        return [key for found in by_hand for key in found.change.changed]

    assert changed(state(8, "them")) == []
    assert changed(state(9, "them")) == ["rootBlockDevice"]


def test_how_a_policy_is_written_the_order_of_a_list_and_the_engines_notes_are_no_change() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:iam/role:Role::role"

    def state(policy: str, groups: list[str]) -> dict[str, Any]:
        inputs = {"policy": policy, "groups": groups, "__defaults": [policy]}
        return {"urn": urn, "custom": True, "inputs": inputs}

    ours, theirs = state('{"a": 1, "b": 2}', ["x", "y"]), state('{"b":2,"a":1}', ["y", "x"])
    held = {"op": "refresh", "urn": urn, "oldState": ours}
    same = {"op": "same", "urn": urn, "oldState": theirs, "newState": ours}
    assert read_preview(json.dumps({"steps": [held, same]})).by_hand == []


def test_what_is_marked_runs_again_and_nothing_else() -> None:
    [step] = read_preview((PREVIEWS / "marked.json").read_text()).steps
    assert (step.name, step.op, step.marked, step.changed) == ("edge1-ant-media", "replace", True, ())
    [notice] = notices([step])
    assert notice.what == f"Ant Media Server restarts if its mode, licence or database is another: {CUT_OFF}"


def test_a_machine_that_is_marked_is_replaced_for_that() -> None:
    urn = f"urn:pulumi:dev::ant-media-cluster::{INSTANCE}::edge1"
    state = {"urn": urn, "custom": True}
    step = {"op": "replace", "urn": urn, "replaceReasons": ["id"], "oldState": {**state, "taint": True}}
    [notice] = notices(read_preview(json.dumps({"steps": [{**step, "newState": state}]})).steps)
    lost = f"{CUT_OFF}, and what it recorded is lost"
    assert notice == Notice(("edge1",), f"the machine is replaced because it is marked for it: {lost}")


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
def test_what_must_not_go_is_named(refusal: str) -> None:
    said = {"severity": "error", "message": f"error: {refusal}\n"}
    assert read_preview(json.dumps({"diagnostics": [said]})).protected == ["load-balancer-ip"]


def test_the_reason_is_what_cannot_change_in_place() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge1"
    changes = {"diffReasons": ["tags", "ami"], "replaceReasons": ["ami"]}
    step = {"op": "replace", "urn": urn, "newState": {"custom": True}, **changes}
    [notice] = notices(read_preview(json.dumps({"steps": [step]})).steps)
    assert notice.because == ("ami",)


def command(script: str, old: dict[str, Any], new: dict[str, Any], changed: str, name: str = "a") -> Step:
    def inputs(told: dict[str, Any]) -> dict[str, Any]:
        run = f"sudo timeout 300 /usr/local/lib/ant-media-cluster/{script} {told.pop('arguments', '')}  # version 1"
        return {"create": run, **told}

    return Step("update", "command:remote:Command", name, "", inputs(old), inputs(new), (changed,))


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (
            Step("replace", "aws:ec2/eip:Eip", "load-balancer-ip", "", {}, {}),
            "the Elastic IP is replaced: every DNS record and firewall that names it must follow",
        ),
        (
            Step("delete", "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "a", "", {}, {}),
            "Security group ingress rule deleted",
        ),
        (
            command("install-valkey.sh", {}, {}, "stdin", "database-valkey"),
            "restarts with another password: nodes do not find each other meanwhile",
        ),
        (
            command("set-up-media-node.sh", {}, {}, "stdin", "edge1-ant-media"),
            f"Ant Media Server restarts if its mode, licence or database is another: {CUT_OFF}",
        ),
        (
            command(
                "apply-haproxy-config.sh",
                {"stdin": "    server edge1 10.0.0.1:5080\n"},
                {"stdin": "    server edge1 10.0.0.2:5080\n"},
                "stdin",
            ),
            "has another address in haproxy.cfg",
        ),
        (
            command(
                "issue-certificate.sh",
                {"arguments": "--email a@b.org --key-type rsa live.b.org"},
                {"arguments": "--email a@b.org --key-type ecdsa live.b.org"},
                "create",
            ),
            "another certificate is asked for, and the authority limits how often; HAProxy serves the one it has until then",
        ),
    ],
)
def test_people_notice(step: Step, what: str) -> None:
    assert [notice.what for notice in notices([step])] == [what]


def test_an_application_that_is_taken_away_is_noticed_and_one_that_comes_is_not() -> None:
    def serving(*applications: str) -> dict[str, Any]:
        origins = (Server("origin1", "10.0.0.8"),)
        return {"stdin": render_haproxy_cfg(HAProxyConfig("a.org", origins, (), applications, 1024, hsts_max_age=0))}

    step = command("apply-haproxy-config.sh", serving("LiveApp", "live"), serving("LiveApp", "more"), "stdin")
    assert notices([step]) == [
        Notice(("live",), "is no application any more: who publishes to it or watches it gets 404")
    ]


@pytest.mark.parametrize(
    "step",
    [
        command(
            "issue-certificate.sh",
            {"arguments": "--email a@b.org --address 198.51.100.1 live.b.org"},
            {"arguments": "--email c@d.org --address 198.51.100.2 live.b.org"},
            "create",
        ),
        command("set-up-media-node.sh", {"arguments": "a b c@d.org"}, {"arguments": "a b e@f.org"}, "create"),
        command(
            "apply-haproxy-config.sh",
            {"stdin": "    server certbot 127.0.0.1:8888\n"},
            {"stdin": "    server acme 127.0.0.1:8888\n"},
            "stdin",
        ),
        Step("update", "aws:ec2/instance:Instance", "edge1", "", {}, {}, ("tags",)),
        Step("create", "aws:ec2/eip:Eip", "load-balancer-ip", "", {}, {}),
    ],
)
def test_nobody_notices(step: Step) -> None:
    assert notices([step]) == []
