"""What of a preview people will notice."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.preview_changes import Notice, Step, notices, read_preview

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
