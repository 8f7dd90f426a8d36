"""Reading of the state, of the engine's and AWS's answers and of find-drift.sh; redaction of secrets."""

import json
import re
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from cluster.machine_scripts import pack
from operations.drift.aws import find_stopped, read_refresh, read_rules
from operations.drift.findings import CLOUD, Difference
from operations.drift.machines import read_machine
from operations.drift.redaction import redact_secrets
from operations.instances import read_instances
from operations.ssh import explain_failure
from operations.stack_state import Connection, StackState, read_stack_state

REFRESH = (Path(__file__).parent / "refresh.json").read_text()
PASSWORD = "51ec9f753e2adad98b79091edea11075b52fa7a5"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n"
SCRIPTS = """\
=== apply-haproxy-config.sh
save_record <<<"file $current"
=== find-drift.sh
echo found
=== prelude.sh
save_record() {
=== set-statistics-password.sh
  save_record <<END
=== wait-for-servers.sh
# does not call save_record
"""
PACKED_SCRIPTS = pack(dict(re.findall(r"(?ms)^=== (\S+)\n(.*?)(?==== |\Z)", SCRIPTS)))
# Releases before did not compress the scripts. The machine has those until the next update.
UNPACKED_SCRIPTS = SCRIPTS


def secret(value: object) -> dict[str, str]:
    return {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "plaintext": json.dumps(value),
    }


def urn(type: str, name: str) -> str:
    return f"urn:pulumi:dev::ant-media-cluster::ant-media:machine:Machine${type}::{name}"


def command(name: str, machine: str, create: str, stdin: object, **more: object) -> dict[str, Any]:
    balancer = {"host": "198.51.100.1", "user": "deployer", "privateKey": KEY, "hostKey": "ssh-ed25519 AAAA"}
    connection = (
        {**balancer, "host": "10.0.0.8", "proxy": balancer} if machine != "load-balancer" else balancer
    )
    type = "command:remote:Command"
    return {
        "urn": urn(type, name),
        "type": type,
        "deletedWith": urn("aws:ec2/instance:Instance", machine),
        "inputs": {"connection": secret(connection), "create": create, "stdin": stdin},
        **more,
    }


@pytest.fixture
def state() -> StackState:
    run = "sudo timeout --verbose 300 /usr/local/lib/ant-media-cluster"
    instances = [
        {"urn": urn(type, name), "type": type, "id": f"i-{name}", "inputs": {}}
        for type in ["aws:ec2/instance:Instance"]
        for name in ("load-balancer", "origin1")
    ]
    resources = [
        *instances,
        command("load-balancer-scripts", "load-balancer", "sudo bash -c '…'", PACKED_SCRIPTS),
        command(
            "service-configuration",
            "load-balancer",
            f"{run}/apply-haproxy-config.sh  # version 1",
            "global\n",
        ),
        command("service-servers", "load-balancer", f"{run}/wait-for-servers.sh d1", None),
        command(
            "load-balancer-credentials",
            "load-balancer",
            f"{run}/set-statistics-password.sh admin",
            secret(f"{PASSWORD}\nredis://:another-password@10.0.0.5\n"),
        ),
        command("gone", "load-balancer", f"{run}/set-statistics-password.sh admin", None, delete=True),
        command("origin1-scripts", "origin1", "sudo bash -c '…'", UNPACKED_SCRIPTS),
        {
            "urn": urn("aws:ec2/securityGroup:SecurityGroup", "firewall-nodes"),
            "type": "aws:ec2/securityGroup:SecurityGroup",
            "id": "sg-1",
        },
        {
            "urn": urn("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "firewall-nodes-http"),
            "type": "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
            "id": "sgr-1",
        },
    ]
    return read_stack_state(json.dumps({"deployment": {"resources": resources}}))


def test_state_holds_connections_and_recording_steps(
    state: StackState,
) -> None:
    balancer, origin = state.machines
    assert balancer.connection == Connection("198.51.100.1", 22, "deployer", KEY, "ssh-ed25519 AAAA")
    assert (balancer.behind_balancer, origin.behind_balancer, origin.connection.host) == (
        False,
        True,
        "10.0.0.8",
    )
    assert [(step.name, step.script) for step in balancer.steps] == [
        ("load-balancer-scripts", "install-scripts.sh"),
        ("service-configuration", "apply-haproxy-config.sh"),
        ("load-balancer-credentials", "set-statistics-password.sh"),
    ]
    assert balancer.deployed_files == f"{SCRIPTS}=== haproxy.cfg\nglobal\n"
    assert origin.deployed_files == SCRIPTS
    assert origin.find_drift_script == "echo found\n"


def test_secrets_of_the_state_are_redacted(state: StackState) -> None:
    text = f"a {PASSWORD} b another-password c b3BlbnNzaC1rZXktdjE d"
    assert redact_secrets(text, state.secrets) == "a [secret] b [secret] c [secret] d"
    assert PASSWORD not in repr(state)
    assert KEY not in repr(state)


def step(op: str, old: object, new: object) -> dict[str, object]:
    states = {"oldState": {"inputs": old}, "newState": {"inputs": new}}
    return {"op": op, "urn": urn("aws:iam/rolePolicy:RolePolicy", "changed"), **states}


PASSWORDS = """\
+    stats auth me:<hunter2>
+    user me insecure-password <hunter2>
+requirepass "<hunter2">
+STATS_PASSWORD=<hunter2 hunter3>
+my_password: <hunter2>
+export api_key = '<hunter2'>
+    http-request set-header X-Api-Key <hunter2>
+    http-request set-header Authorization "<Basic aHVudGVyMg==">
+Authorization: <Basic aHVudGVyMg==>
+{"client_secret": "<hunter2", "more": 1}>
+SecretString: <hunter2>
+# token <hunter2>
+    server a https://<u:hunter2>@h/
+redis://<:hunter2>@h:6379
"""
NO_PASSWORDS = """\
+Resource: arn:aws:secretsmanager:eu-west-1:123456789012:secret:cluster
+Action: ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"]
+secretId: arn:aws:secretsmanager:eu-west-1:123456789012:secret:cluster
+  httpTokens: optional
-clusterdb.password contents as deployed, not shown
+clusterdb.password other contents, not shown
     http-request auth realm "Haproxy Statistics" unless { http_auth(statistics) }
     http-request del-header Authorization
"""


def test_passwords_entered_by_hand_are_redacted(state: StackState) -> None:
    balancer, _ = state.machines
    entered = re.sub("[<>]", "", PASSWORDS)
    [found] = read_machine(balancer, f"=== apply-haproxy-config.sh\n{entered}{NO_PASSWORDS}")
    assert found.lines == [*re.sub("<.*?>", "[secret]", PASSWORDS).splitlines(), *NO_PASSWORDS.splitlines()]
    [cloud] = read_refresh(
        json.dumps({"steps": [step("update", {"userData": "a"}, {"userData": "password=hunter2"})]})
    )
    assert cloud.lines[1:] == ["-userData: a", "+userData: password=[secret]"]


def test_order_of_a_list_is_no_difference() -> None:
    old, new = {"groups": ["sg-1", "sg-2"], "type": "a"}, {"groups": ["sg-2", "sg-1", "sg-0"], "type": "a"}
    [found] = read_refresh(json.dumps({"steps": [step("update", old, new)]}))
    assert [line for line in found.lines if line[0] in "+-"] == ["+- sg-0"]


def test_tags_of_a_root_volume_are_no_difference() -> None:
    def differences(size: int) -> list[Difference]:
        old, new = (
            {"rootBlockDevice": {"volumeSize": size, "tags": {"owner": owner}}}
            for size, owner in ((8, "us"), (size, "them"))
        )
        return read_refresh(json.dumps({"steps": [step("update", old, new)]}))

    assert differences(8) == []
    assert len(differences(9)) == 1


def test_changed_and_deleted_resources_are_diffs_of_properties() -> None:
    edge, rule = read_refresh(REFRESH)
    assert (edge.place, edge.name, edge.summary) == (CLOUD, "edge1", "Instance, changed")
    assert [line for line in edge.lines if line[0] in "+-"] == ["+  owner: someone"]
    assert (rule.name, rule.summary) == (
        "firewall-load-balancer-play-http-from-0.0.0.0/0",
        "Security group ingress rule, deleted",
    )
    assert "-toPort: 5080" in rule.lines
    assert not [line for line in rule.lines if line.startswith("+")]


def test_stopped_machine_is_a_difference_that_no_update_restores(state: StackState) -> None:
    described = [{"InstanceId": "i-origin1", "State": {"Name": "stopped"}}]
    instances = read_instances(state, described)
    assert [(one.name, one.state) for one in instances] == [
        ("load-balancer", "terminated"),
        ("origin1", "stopped"),
    ]
    assert find_stopped(instances) == [
        Difference(
            CLOUD, "origin1", "Instance, stopped", ["-running", "+stopped"], stopped_instance="i-origin1"
        )
    ]


V6_TAGS = {"tags": {"Name": "dev-edge1", "stack": "dev"}}
V7_TAGS = {"tags": {"Name": "dev-edge1"}, "tagsAll": {"Name": "dev-edge1", "stack": "dev"}}


def compare(
    old: dict[str, Any],
    new: dict[str, Any],
    old_outputs: dict[str, Any] | None = None,
    new_outputs: dict[str, Any] | None = None,
    **more: Any,
) -> list[str]:
    """Returns the changed lines that a refresh from `old` to `new` reports."""
    refreshed = {
        "op": "update",
        "urn": urn("aws:ec2/instance:Instance", "edge1"),
        "oldState": {"inputs": old, "outputs": old_outputs or {}},
        "newState": {"inputs": new, "outputs": new_outputs or {}},
        **more,
    }
    return [
        line
        for difference in read_refresh(json.dumps({"steps": [refreshed]}))
        for line in difference.lines
        if not line.startswith((" ", "@@"))
    ]


def test_each_changed_tag_is_shown_once_whichever_version_of_the_provider_read_it() -> None:
    v6 = {"tags": {"Name": "dev-edge1", "stack": "dev", "owner": "me"}}
    assert compare(V6_TAGS, v6) == ["+  owner: me"]
    v7 = {
        "tags": {"Name": "dev-edge1", "owner": "me"},
        "tagsAll": {"Name": "dev-edge1", "stack": "dev", "owner": "me"},
    }
    assert compare(V7_TAGS, v7) == ["+  owner: me"]
    # A default tag that was removed by hand is missing in `tagsAll` only.
    assert compare(V7_TAGS, {**V7_TAGS, "tagsAll": {"Name": "dev-edge1"}}) == ["-  stack: dev"]
    assert compare({**V6_TAGS, "size": 1}, {**V7_TAGS, "size": 2}) == ["-size: 1", "+size: 2"]


def test_public_address_that_a_stopped_machine_lacks_is_no_difference() -> None:
    running = {"associatePublicIpAddress": True, **V7_TAGS}
    stopped = {"associatePublicIpAddress": False, **V7_TAGS}
    detailed = {"associatePublicIpAddress": {"kind": "update-replace"}}
    assert compare(running, stopped) == []
    assert compare(running, stopped, running, stopped, detailedDiff=detailed) == []
    assert compare(running, running, running, stopped, detailedDiff=detailed) == []
    assert compare({**running, "size": 1}, {**stopped, "size": 2}) == ["-size: 1", "+size: 2"]
    secret_differs = {**detailed, "userData": {"kind": "update"}}
    assert compare(running, stopped, detailedDiff=secret_differs) == [
        "A secret, or the order of a list, differs."
    ]


def test_policy_that_differs_in_outputs_only_is_shown() -> None:
    # The provider keeps the input that the program gave.
    inputs = {"policy": "{}"}
    old, new = {"policy": "{}", "id": "a"}, {"policy": '{"Statement": []}', "id": "b"}
    assert compare(inputs, inputs, old, new) == ["-policy: '{}'", "+policy: '{\"Statement\": []}'"]


def test_rejected_ssh_key_comes_with_the_command_that_replaces_the_machine(state: StackState) -> None:
    _, origin = state.machines
    taint = "pulumi state taint --stack dev 'urn:pulumi:dev::ant-media-cluster::ant-media:machine:Machine$aws:ec2/instance:Instance::origin1'"
    assert f"{taint}, then make up STACK=dev" in explain_failure(origin, asyncssh.PermissionDenied("no"))


def test_added_rule_is_found_until_an_update_deletes_it(
    state: StackState,
) -> None:
    known = {"SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "IsEgress": False, "IpProtocol": "tcp"}
    added = {
        **known,
        "SecurityGroupRuleId": "sgr-2",
        "FromPort": 8080,
        "ToPort": 8080,
        "CidrIpv4": "0.0.0.0/0",
    }
    rules, [difference] = read_rules(state, [known, added])
    [rule] = rules
    assert (rule.id, rule.name, rule.imported) == ("sgr-2", "by-hand-tcp-8080-8080-sgr-2", False)
    assert {"+FromPort: 8080", "+CidrIpv4: 0.0.0.0/0", "+SecurityGroup: firewall-nodes"} <= {
        *difference.lines
    }
    imported = StackState(
        [], {}, state.security_groups, {"sgr-1": "known", "sgr-2": rule.name}, {}, frozenset()
    )
    [again], [same] = read_rules(imported, [known, added])
    assert again.imported
    assert same == difference


def test_output_of_find_drift_is_split_by_step(state: StackState) -> None:
    balancer, _ = state.machines
    found = read_machine(
        balancer,
        "=== set-statistics-password.sh\n--- a\n+++ b\n === no step\n=== apply-haproxy-config.sh\nx\n",
    )
    assert [(one.place, one.name, one.summary, one.lines) for one in found] == [
        (
            "load-balancer",
            "load-balancer-credentials",
            "set-statistics-password.sh",
            ["--- a", "+++ b", " === no step"],
        ),
        ("load-balancer", "service-configuration", "apply-haproxy-config.sh", ["x"]),
    ]
    assert [one.steps for one in found] == [(balancer.steps[2].urn,), (balancer.steps[1].urn,)]
