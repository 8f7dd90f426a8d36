"""What differs is found in what the engine and the machines say, and nothing that is secret comes along."""

import json
import re
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from operations.drift.__main__ import why
from operations.drift.findings import (
    CLOUD,
    Connection,
    Deployment,
    Difference,
    added_rules,
    away,
    find_drift_script,
    read_cloud,
    read_machine,
    read_state,
    without_secrets,
)

REFRESH = (Path(__file__).parent / "refresh.json").read_text()
PASSWORD = "51ec9f753e2adad98b79091edea11075b52fa7a5"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n"
SCRIPTS = """\
=== apply-haproxy-config.sh
keep <<<"file $current"
=== find-drift.sh
echo found
=== prelude.sh
keep() {
=== set-statistics-password.sh
  keep <<END
=== wait-for-servers.sh
# does not keep anything
"""


def secret(value: object) -> dict[str, str]:
    return {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "plaintext": json.dumps(value),
    }


def urn(type: str, name: str) -> str:
    return f"urn:pulumi:dev::ant-media-cluster::ant-media:machine:Machine${type}::{name}"


def command(name: str, machine: str, create: str, stdin: object, **more: object) -> dict[str, Any]:
    door = {"host": "198.51.100.1", "user": "deployer", "privateKey": KEY, "hostKey": "ssh-ed25519 AAAA"}
    connection = {**door, "host": "10.0.0.8", "proxy": door} if machine != "load-balancer" else door
    type = "command:remote:Command"
    return {
        "urn": urn(type, name),
        "type": type,
        "deletedWith": urn("aws:ec2/instance:Instance", machine),
        "inputs": {"connection": secret(connection), "create": create, "stdin": stdin},
        **more,
    }


@pytest.fixture
def deployment() -> Deployment:
    run = "sudo timeout --verbose 300 /usr/local/lib/ant-media-cluster"
    instances = [
        {"urn": urn(type, name), "type": type, "id": f"i-{name}", "inputs": {}}
        for type in ["aws:ec2/instance:Instance"]
        for name in ("load-balancer", "origin1")
    ]
    resources = [
        *instances,
        command("load-balancer-scripts", "load-balancer", "sudo bash -c '…'", SCRIPTS),
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
        command("origin1-scripts", "origin1", "sudo bash -c '…'", SCRIPTS),
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
    return read_state(json.dumps({"deployment": {"resources": resources}}))


def test_a_state_tells_how_machines_are_reached_and_which_steps_can_be_looked_at(
    deployment: Deployment,
) -> None:
    balancer, origin = deployment.machines
    assert balancer.connection == Connection("198.51.100.1", 22, "deployer", KEY, "ssh-ed25519 AAAA")
    assert (balancer.jumped, origin.jumped, origin.connection.host) == (False, True, "10.0.0.8")
    assert [(step.name, step.script) for step in balancer.steps] == [
        ("load-balancer-scripts", "install-scripts.sh"),
        ("service-configuration", "apply-haproxy-config.sh"),
        ("load-balancer-credentials", "set-statistics-password.sh"),
    ]
    assert balancer.deployed == f"{SCRIPTS}=== haproxy.cfg\nglobal\n"
    assert origin.deployed == SCRIPTS
    assert find_drift_script(origin) == "echo found\n"


def test_what_a_state_knows_in_secret_is_in_no_report(deployment: Deployment) -> None:
    text = f"a {PASSWORD} b another-password c b3BlbnNzaC1rZXktdjE d"
    assert without_secrets(text, deployment.secrets) == "a [secret] b [secret] c [secret] d"
    assert PASSWORD not in repr(deployment)
    assert KEY not in repr(deployment)


def step(op: str, old: object, new: object) -> dict[str, object]:
    states = {"oldState": {"inputs": old}, "newState": {"inputs": new}}
    return {"op": op, "urn": urn("aws:iam/rolePolicy:RolePolicy", "changed"), **states}


TYPED = """\
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
SHOWN = """\
+Resource: arn:aws:secretsmanager:eu-west-1:123456789012:secret:cluster
+Action: ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"]
+secretId: arn:aws:secretsmanager:eu-west-1:123456789012:secret:cluster
+  httpTokens: optional
-clusterdb.password contents as deployed, not shown
+clusterdb.password other contents, not shown
     http-request auth realm "Haproxy Statistics" unless { http_auth(statistics) }
     http-request del-header Authorization
"""


def test_what_somebody_typed_in_secret_is_not_shown(deployment: Deployment) -> None:
    balancer, _ = deployment.machines
    typed = re.sub("[<>]", "", TYPED)
    [found] = read_machine(balancer, f"=== apply-haproxy-config.sh\n{typed}{SHOWN}")
    assert found.lines == [*re.sub("<.*?>", "[secret]", TYPED).splitlines(), *SHOWN.splitlines()]
    [cloud] = read_cloud(
        json.dumps({"steps": [step("update", {"userData": "a"}, {"userData": "password=hunter2"})]})
    )
    assert cloud.lines[1:] == ["-userData: a", "+userData: password=[secret]"]


def test_the_order_of_lists_is_no_difference() -> None:
    old, new = {"groups": ["sg-1", "sg-2"], "type": "a"}, {"groups": ["sg-2", "sg-1", "sg-0"], "type": "a"}
    [found] = read_cloud(json.dumps({"steps": [step("update", old, new)]}))
    assert [line for line in found.lines if line[0] in "+-"] == ["+- sg-0"]


def test_the_tags_of_a_volume_are_not_the_program_s_and_no_difference() -> None:
    def found(size: int) -> list[Difference]:
        old, new = (
            {"rootBlockDevice": {"volumeSize": size, "tags": {"owner": owner}}}
            for size, owner in ((8, "us"), (size, "them"))
        )
        return read_cloud(json.dumps({"steps": [step("update", old, new)]}))

    assert found(8) == []
    assert len(found(9)) == 1


def test_the_clouds_differences_are_diffs_of_properties() -> None:
    edge, rule = read_cloud(REFRESH)
    assert (edge.where, edge.name, edge.what) == (CLOUD, "edge1", "Instance, changed")
    assert [line for line in edge.lines if line[0] in "+-"] == ["+  owner: someone"]
    assert (rule.name, rule.what) == (
        "firewall-load-balancer-play-http-from-0.0.0.0/0",
        "Security group ingress rule, deleted",
    )
    assert "-toPort: 5080" in rule.lines
    assert not [line for line in rule.lines if line.startswith("+")]


def test_a_machine_that_was_stopped_is_a_difference_that_no_update_heals(deployment: Deployment) -> None:
    described = [{"Instances": [{"InstanceId": "i-origin1", "State": {"Name": "stopped"}}]}]
    gone_or_off, [stopped] = away(deployment, described)
    assert gone_or_off == {"load-balancer", "origin1"}
    assert (stopped.name, stopped.what, stopped.healed) == ("origin1", "Instance, stopped", False)
    assert stopped.lines[-1] == "aws ec2 start-instances --instance-ids i-origin1"


def test_a_machine_that_lets_nobody_in_is_to_be_replaced(deployment: Deployment) -> None:
    _, origin = deployment.machines
    taint = "pulumi state taint --stack dev 'urn:pulumi:dev::ant-media-cluster::ant-media:machine:Machine$aws:ec2/instance:Instance::origin1'"
    assert f"{taint}, then make up STACK=dev" in why(origin, asyncssh.PermissionDenied("no"))


def test_a_rule_that_was_added_to_a_group_is_found_until_an_update_took_it_away(
    deployment: Deployment,
) -> None:
    known = {"SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "IsEgress": False, "IpProtocol": "tcp"}
    added = {
        **known,
        "SecurityGroupRuleId": "sgr-2",
        "FromPort": 8080,
        "ToPort": 8080,
        "CidrIpv4": "0.0.0.0/0",
    }
    rules, [difference] = added_rules(deployment, [known, added])
    [rule] = rules
    assert (rule.id, rule.name, rule.imported) == ("sgr-2", "by-hand-tcp-8080-8080-sgr-2", False)
    assert {"+FromPort: 8080", "+CidrIpv4: 0.0.0.0/0", "+SecurityGroup: firewall-nodes"} <= {
        *difference.lines
    }
    imported = Deployment([], {}, deployment.groups, {"sgr-1": "known", "sgr-2": rule.name}, {}, frozenset())
    [again], [same] = added_rules(imported, [known, added])
    assert again.imported
    assert same == difference


def test_what_a_machine_says_is_told_by_step(deployment: Deployment) -> None:
    balancer, _ = deployment.machines
    found = read_machine(
        balancer,
        "=== set-statistics-password.sh\n--- a\n+++ b\n === no step\n=== apply-haproxy-config.sh\nx\n",
    )
    assert [(one.where, one.name, one.what, one.lines) for one in found] == [
        (
            "load-balancer",
            "load-balancer-credentials",
            "set-statistics-password.sh",
            ["--- a", "+++ b", " === no step"],
        ),
        ("load-balancer", "service-configuration", "apply-haproxy-config.sh", ["x"]),
    ]
    assert [one.marks for one in found] == [(balancer.steps[2].urn,), (balancer.steps[1].urn,)]
