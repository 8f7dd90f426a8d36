"""Warnings of a preview: interruptions and deletions."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from operations.preview.changes import Step, parse_preview
from operations.preview.warnings import PreviewWarning, find_warnings
from operations.resources import INSTANCE
from policy.resource import SECRET, UNKNOWN, Resource

PREVIEWS = Path(__file__).parent / "previews"
OUTAGE = "its publishers and viewers are disconnected"


def find_recorded_warnings(name: str) -> list[PreviewWarning]:
    return find_warnings(parse_preview((PREVIEWS / f"{name}.json").read_text()).steps)


@pytest.mark.parametrize("name", ["nothing", "third-edge", "new-stack", "wrong-settings"])
def test_additions_cause_no_warning(name: str) -> None:
    assert find_recorded_warnings(name) == []


def test_removed_edge_is_drained_and_deleted() -> None:
    assert find_recorded_warnings("third-edge-goes") == [
        PreviewWarning(("edge3",), f"the machine is deleted: {OUTAGE}, and its recordings are lost"),
        PreviewWarning(("edge3",), "is removed from haproxy.cfg: it receives no new clients"),
    ]


def test_new_instance_type_stops_edges() -> None:
    assert find_recorded_warnings("larger-edges") == [
        PreviewWarning(("edge1", "edge2"), f"the machine stops and starts: {OUTAGE}", ("instanceType",))
    ]


def test_larger_volumes_grow_without_a_restart_and_for_good() -> None:
    def resize(name: str) -> Step:
        old, new = ({"rootBlockDevice": {"volumeSize": gib, "encrypted": True}} for gib in (16, 40))
        return Step("update", INSTANCE, name, "", old, new, ("rootBlockDevice",))

    assert find_warnings([resize("edge1"), resize("edge2")]) == [
        PreviewWarning(
            ("edge1", "edge2"),
            "the volume and its file system grow from 16 to 40 GiB while the machine runs. AWS does not make a volume smaller",
        )
    ]


def test_new_load_balancer_type_stops_all_traffic() -> None:
    outage = "nobody can publish, play or administer until it is back"
    assert find_recorded_warnings("larger-balancer") == [
        PreviewWarning(("load-balancer",), f"the machine stops and starts: {outage}", ("instanceType",))
    ]


def test_new_domain_deletes_dns_record_and_requests_certificate() -> None:
    assert [
        (warning.names, warning.message.partition(":")[0])
        for warning in find_recorded_warnings("another-domain")
    ] == [
        (("load-balancer-record-live.ant-media.test",), "the DNS record is deleted"),
        (
            ("service-certificate",),
            "a new certificate is requested, and the authority limits how often; HAProxy serves the current one until then",
        ),
        (
            ("edge1", "edge2", "origin1", "origin2"),
            "the program logs in to the web panel as admin@tv.ant-media.test instead of admin@live.ant-media.test. The panel keeps "
            "its users",
        ),
    ]


def test_new_host_key_seed_replaces_every_machine_load_balancer_first() -> None:
    lost = ", and its recordings are lost"
    assert find_recorded_warnings("new-secrets") == [
        PreviewWarning(
            ("load-balancer",),
            "the machine is replaced: nobody can publish, play or administer until it is back",
            ("userData",),
        ),
        PreviewWarning(
            ("database",),
            "the machine is replaced: its standby on the load balancer leads until it is back, and it gets its data from the "
            "standby. If the load balancer is replaced too, the data is lost (make registry-backup copies it): then every node is "
            "drained and restarts, one node of a role at a time, to register its streams again",
            ("userData",),
        ),
        PreviewWarning(
            ("edge1", "edge2", "edge3", "origin1", "origin2"),
            f"the machine is replaced: {OUTAGE}{lost}",
            ("userData",),
        ),
        PreviewWarning(("load-balancer-ip",), "Elastic IP association replaced"),
    ]


def test_tainted_command_runs_again() -> None:
    [step] = parse_preview((PREVIEWS / "marked.json").read_text()).steps
    assert (step.name, step.op, step.tainted, step.changed) == ("edge1-ant-media", "replace", True, ())
    [warning] = find_warnings([step])
    assert (
        warning.message
        == f"Ant Media Server restarts if its mode, licence, database or settings change: {OUTAGE}"
    )


def test_tainted_machine_is_replaced() -> None:
    urn = f"urn:pulumi:dev::ant-media-cluster::{INSTANCE}::edge1"
    state = {"urn": urn, "custom": True}
    step = {"op": "replace", "urn": urn, "replaceReasons": ["id"], "oldState": {**state, "taint": True}}
    [warning] = find_warnings(parse_preview(json.dumps({"steps": [{**step, "newState": state}]})).steps)
    lost = f"{OUTAGE}, and its recordings are lost"
    assert warning == PreviewWarning(
        ("edge1",), f"the machine is replaced because it is marked in the state: {lost}"
    )


def test_reason_of_replacement_is_the_property_that_requires_it() -> None:
    urn = "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::edge1"
    changes = {"diffReasons": ["tags", "ami"], "replaceReasons": ["ami"]}
    step = {"op": "replace", "urn": urn, "newState": {"custom": True}, **changes}
    [warning] = find_warnings(parse_preview(json.dumps({"steps": [step]})).steps)
    assert warning.reasons == ("ami",)


def recording_settings(**applications: bool) -> Resource:
    """Returns the step that sets whether applications upload their recordings."""
    settings = {name: {"s3RecordingEnabled": uploads} for name, uploads in applications.items()}
    run = shlex.join(
        ["/usr/local/lib/ant-media-cluster/set-app-settings.py", "a@b.org", json.dumps(settings)]
    )
    return Resource("command:remote:Command", "origin1-app-settings", {"create": f"sudo timeout 300 {run}"})


@pytest.mark.parametrize(
    ("uploading", "lost"),
    [
        ({}, ", and its recordings are lost"),
        ({"live": False}, ", and its recordings are lost"),
        ({"live": True}, ", and its recordings are lost, except those of live that are in S3"),
        ({"live": True, "LiveApp": True}, ", and recordings that are not in S3 yet are lost"),
    ],
)
def test_lost_recordings_are_those_that_no_application_uploads(uploading: dict[str, bool], lost: str) -> None:
    set_up = "/usr/local/lib/ant-media-cluster/set-up-media-node.sh installed cluster a@b.org '{}' '{}' LiveApp live"
    before = [
        Resource("command:remote:Command", "edge1-ant-media", {"create": set_up}),
        recording_settings(**uploading),
    ]
    deleted = Step("delete", INSTANCE, "edge1", "", {}, {})
    assert [warning.message for warning in find_warnings([deleted], before)] == [
        f"the machine is deleted: {OUTAGE}{lost}"
    ]


def command(script: str, old: dict[str, Any], new: dict[str, Any], changed: str, name: str = "a") -> Step:
    def inputs(values: dict[str, Any]) -> dict[str, Any]:
        run = f"sudo timeout 300 /usr/local/lib/ant-media-cluster/{script} {values.pop('arguments', '')}  # version 1"
        return {"create": run, **values}

    return Step("update", "command:remote:Command", name, "", inputs(old), inputs(new), (changed,))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            Step("replace", "aws:ec2/eip:Eip", "load-balancer-ip", "", {}, {}),
            "the Elastic IP is replaced: update every DNS record and firewall that names it",
        ),
        (
            Step("delete", "aws:s3/bucket:Bucket", "recordings-bucket", "", {"forceDestroy": True}, {}),
            "the bucket is deleted, and all recordings in it are deleted",
        ),
        (
            Step("delete", "aws:s3/bucket:Bucket", "recordings-bucket", "", {"bucket": "a-recordings-1"}, {}),
            "the bucket a-recordings-1 leaves the stack. It and its recordings stay in AWS",
        ),
        (
            Step("delete", "aws:iam/accessKey:AccessKey", "recordings-key", "", {}, {}),
            "recordings are no longer uploaded, and applications that are still told to upload do not finish them: set "
            "s3RecordingEnabled to false in applicationSettings",
        ),
        (
            Step("delete", "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "a", "", {}, {}),
            "Security group ingress rule deleted",
        ),
        (
            replace(command("install-valkey.sh database", {}, {}, "create", "database-valkey"), tainted=True),
            "restarts if its configuration changes: its standby on the load balancer leads until it is back",
        ),
        (
            # A new database machine: whether it has data is known when it answers.
            command(
                "set-up-media-node.sh", {"stdin": SECRET}, {"stdin": UNKNOWN}, "triggers", "edge1-ant-media"
            ),
            "if the database comes back without its data, the node is drained and Ant Media Server restarts, one node of a "
            f"role after the other, so that live streams are registered again: {OUTAGE}",
        ),
        (
            command(
                "apply-haproxy-config.sh",
                {"stdin": "    server edge1 10.0.0.1:5080\n"},
                {"stdin": "    server edge1 10.0.0.2:5080\n"},
                "stdin",
            ),
            "changes its address in haproxy.cfg",
        ),
        (
            command(
                "issue-certificate.sh",
                {"arguments": "--email a@b.org --key-type rsa live.b.org"},
                {"arguments": "--email a@b.org --key-type ecdsa live.b.org"},
                "create",
            ),
            "a new certificate is requested, and the authority limits how often; HAProxy serves the current one until then",
        ),
    ],
)
def test_interruption_causes_warning(step: Step, message: str) -> None:
    assert [warning.message for warning in find_warnings([step])] == [message]


def test_server_restarts_only_on_a_node_that_is_drained() -> None:
    """A change of standard input alone may be another panelPassword."""
    arguments = {"arguments": "installed cluster a@b.org {} {}"}
    step = command("set-up-media-node.sh", {**arguments}, {**arguments}, "stdin", "edge1-ant-media")
    assert find_warnings([step]) == []
    restarts = f"Ant Media Server restarts if its mode, licence, database or settings change: {OUTAGE}"
    steps = [step, drain("edge1", "edge1 60 aaa", "edge1 60 bbb")]
    assert PreviewWarning(("edge1",), restarts) in find_warnings(steps)


def test_another_panel_user_is_announced() -> None:
    arguments = (
        {"arguments": "installed cluster a@b.org {} {}"},
        {"arguments": "installed cluster c@b.org {} {}"},
    )
    [warning] = find_warnings([command("set-up-media-node.sh", *arguments, "create", "edge1-ant-media")])
    assert "as c@b.org instead of a@b.org" in warning.message


def test_upgrade_warns_of_its_order() -> None:
    def upgrade(name: str, source: str) -> Step:
        old, new = ({"arguments": f"{zip} cluster a@b.org LiveApp"} for zip in (source, f"zip:{'b' * 64}"))
        return command("set-up-media-node.sh", old, new, "stdin", f"{name}-ant-media")

    steps = [upgrade(name, f"zip:{'a' * 64}") for name in ("origin1", "edge2", "edge1")]
    [warning, other] = find_warnings([*steps, upgrade("edge3", "installed")])
    assert warning.names == ("edge1", "edge2", "origin1")
    assert warning.message == (
        f"Ant Media Server is upgraded in this order, one node after another, from the zip {'a' * 12} to the zip {'b' * 12}. "
        "A node that does not become ready ends the update, and the others keep serving"
    )
    assert "from the server of the image to the zip bbbbbbbbbbbb" in other.message


def test_removed_application_causes_warning_and_added_one_does_not() -> None:
    def serving(*applications: str) -> dict[str, Any]:
        origins = (Server("origin1", "10.0.0.8"),)
        return {
            "stdin": render_haproxy_cfg(
                HAProxyConfig(
                    "a.org", origins, (), applications, ("192.0.2.0/24",), 1936, 1024, hsts_max_age=0
                )
            )
        }

    step = command("apply-haproxy-config.sh", serving("LiveApp", "live"), serving("LiveApp", "more"), "stdin")
    assert find_warnings([step]) == [
        PreviewWarning(("live",), "is removed from the applications: its publishers and viewers get 404")
    ]


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (
            1936,
            2936,
            ["moves from port 1936 to 2936: publishers that use 1936 cannot connect. Give them the new port"],
        ),
        (2936, 0, ["port 2936 is closed: its publishers cannot connect"]),
        (0, 1936, []),
    ],
)
def test_port_of_rtmps_that_moves_or_closes_causes_warning(old: int, new: int, messages: list[str]) -> None:
    def listening(port: int) -> dict[str, Any]:
        config = HAProxyConfig(
            "a.org",
            (Server("origin1", "10.0.0.8"),),
            (),
            ("live",),
            ("192.0.2.0/24",),
            port,
            1024,
            hsts_max_age=0,
        )
        return {"stdin": render_haproxy_cfg(config)}

    step = command("apply-haproxy-config.sh", listening(old), listening(new), "stdin")
    assert find_warnings([step]) == [PreviewWarning(("RTMPS",), message) for message in messages]


@pytest.mark.parametrize(
    "step",
    [
        command(
            "issue-certificate.sh",
            {"arguments": "--email a@b.org --address 198.51.100.1 live.b.org"},
            {"arguments": "--email c@d.org --address 198.51.100.2 live.b.org"},
            "create",
        ),
        command(
            "set-up-media-node.sh",
            {"arguments": "zip:a b c@d.org {} {}"},
            {"arguments": "zip:a b c@d.org {} {} live"},
            "create",
        ),
        command(
            "apply-haproxy-config.sh",
            {"stdin": "    server certbot 127.0.0.1:8888\n"},
            {"stdin": "    server acme 127.0.0.1:8888\n"},
            "stdin",
        ),
        # The server of the metrics, without monitoringCidrs.
        command(
            "apply-haproxy-config.sh",
            {"stdin": "    server edge1 10.0.0.1:5080\n    server machine 0.0.0.0:0\n"},
            {"stdin": "    server edge1 10.0.0.1:5080\n"},
            "stdin",
        ),
        Step("update", "aws:ec2/instance:Instance", "edge1", "", {}, {}, ("tags",)),
        Step("update", "aws:ec2/instance:Instance", "edge1", "", {}, {}, ("tags", "tagsAll")),
        Step("create", "aws:ec2/eip:Eip", "load-balancer-ip", "", {}, {}),
    ],
)
def test_harmless_change_causes_no_warning(step: Step) -> None:
    assert find_warnings([step]) == []


DRAINED = "drained before it restarts or is replaced, one node of a role after the other"


def drain(name: str, old: str, new: str) -> Step:
    return command("drain-server.sh", {"arguments": old}, {"arguments": new}, "create", f"{name}-drain")


def test_restarting_nodes_are_drained_and_the_waits_add_up() -> None:
    steps = [drain("edge1", "edge1 60 aaa", "edge1 90 bbb"), drain("edge2", "edge2 60 ccc", "edge2 90 ddd")]
    wait = "the update waits for its connections for at most 90 s and then closes them (180 s in all)"
    assert find_warnings(steps) == [PreviewWarning(("edge1", "edge2"), f"{DRAINED}: {wait}")]


def test_new_database_drains_nodes_although_its_id_is_unknown() -> None:
    step = drain("edge1", "edge1 60 aaa-i-1", "")
    unknown = replace(step, new={**step.new, "create": UNKNOWN})
    wait = "the update waits for its connections for at most 60 s and then closes them"
    assert find_warnings([unknown]) == [PreviewWarning(("edge1",), f"{DRAINED}: {wait}")]


def test_node_that_does_not_restart_is_not_drained() -> None:
    assert find_warnings([drain("edge1", "edge1 60 aaa", "edge1 90 aaa")]) == []


def test_removed_nodes_are_drained_together() -> None:
    arguments = {"arguments": "60 origin1 edge1 edge2"}, {"arguments": "0 origin1"}
    step = command("drain-removed-servers.sh", *arguments, "create", "service-removed-servers")
    assert find_warnings([step]) == [
        PreviewWarning(
            ("edge1", "edge2"),
            "drained before its machine is deleted: drainSeconds is 0, so its connections are closed at once",
        )
    ]
