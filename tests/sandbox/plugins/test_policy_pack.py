"""Runs the policy pack in the real engine. tests/unit/policy/test_rules.py tests each rule."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from policy.rules import RULES
from tests.project import PROJECT
from tests.sandbox.plugins.plugin_stack import Stack

PACK = PROJECT / "policy"
TAGS = {"project": "plugins", "stack": "test", "owner": "media-team"}

# The resources that pulumi_aws and pulumi_command would register; importing those packages takes a second.
VALID_PROGRAM = """\
import pulumi

group = pulumi.CustomResource("aws:ec2/securityGroup:SecurityGroup", "firewall-nodes", {"vpcId": "vpc-1"})


def ingress_rule(name, from_port, to_port, **source):
    inputs = {"securityGroupId": group.id, "ipProtocol": "tcp", "fromPort": from_port, "toPort": to_port, **source}
    pulumi.CustomResource("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", name, inputs)


def instance(name, instance_type="t3.small", tokens="required", encrypted=True):
    inputs = {
        "ami": "ami-1",
        "instanceType": instance_type,
        "metadataOptions": {"httpTokens": tokens},
        "rootBlockDevice": {"encrypted": encrypted},
    }
    pulumi.CustomResource("aws:ec2/instance:Instance", name, inputs)


ingress_rule("cluster", 5000, 5000, referencedSecurityGroupId=group.id)
instance("origin1")
instance("edge1", instance_type="t4g.small")
pulumi.CustomResource("command:local:Command", "script", {"create": "true", "stdin": pulumi.Output.secret("hush-hush")})
"""
VIOLATIONS = {
    "admin-ports": 'ingress_rule("ssh", 22, 22, cidrIpv4="0.0.0.0/0")',
    "public-database": 'ingress_rule("valkey", 6379, 6379, cidrIpv4="10.0.0.0/16")',
    "port-table": 'ingress_rule("wide", 5000, 5001, referencedSecurityGroupId=group.id)',
    "imdsv2": 'instance("imdsv1", tokens="optional")',
    "encrypted-volumes": 'instance("plain", encrypted=False)',
    "instance-types": 'instance("large", instance_type="c5.metal")',
    "private-buckets": 'pulumi.CustomResource("aws:s3/bucket:Bucket", "recordings", {"bucket": "recordings"})',
    "command-secrets": (
        'pulumi.CustomResource("command:local:Command", "secret", {"create": pulumi.Output.secret("true")})'
    ),
}
"""Lines of a program, by the rule that they violate. Two rules are missing: `tags` and `protected-resources`."""


def configure(stack: Stack, tags: Mapping[str, str]) -> None:
    stack.configure(
        {
            "aws:region": "eu-west-1",
            "aws:accessKey": "test",
            "aws:secretKey": "test",
            "aws:skipCredentialsValidation": True,
            "aws:skipRequestingAccountId": True,
            "aws:defaultTags": {"tags": dict(tags)},
        }
    )


def run_pack(stack: Stack, command: str, *options: str, config: Path | None = None, fails: bool) -> str:
    """Runs pulumi with the policy pack, checks its exit code and returns its output."""
    config_option = ("--policy-pack-config", str(config)) if config else ()
    return stack.run(command, *options, "--policy-pack", str(PACK), *config_option, fails=fails)


def find_levels(output: str) -> dict[str, str]:
    """Returns the level of each reported rule, from lines such as `- [mandatory]  tags  (aws:ec2:Eip: ip)`."""
    violations = [line.split()[1:3] for line in output.splitlines() if line.strip().startswith("- [")]
    return {rule: level.strip("[]") for level, rule in violations}


@pytest.mark.parametrize(
    ("stack", "options"),
    [
        ("sandbox", "--policy-pack policy"),
        ("dev", "--policy-pack policy"),
        ("prod", "--policy-pack policy --policy-pack-config policy/prod.json"),
    ],
)
@pytest.mark.parametrize("command", [("preview",), ("up",), ("up", "PLAN=plan.json")], ids=" ".join)
def test_make_runs_pulumi_with_the_policy_pack(
    command: tuple[str, ...], stack: str, options: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "SANDBOX_STATE": str(tmp_path)}
    dry_run = ["make", "--dry-run", f"STACK={stack}", *command]
    printed = subprocess.run(
        dry_run, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    *checks, line = [line for line in printed.splitlines() if "--policy-pack" in line or "find_spec" in line]
    assert options in line
    # `make up` on the sandbox runs the set-up, which creates the pack's environment.
    assert bool(checks) != ((stack, command) == ("sandbox", ("up",)))
    assert ("--policy-pack-config" in line) == ("--policy-pack-config" in options)


@pytest.mark.parametrize("command", [("preview",), ("up",), ("preview", "FORMAT=markdown")], ids=" ".join)
def test_make_names_the_command_that_creates_a_missing_environment(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("Makefile", "Pulumi.dev.yaml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    (tmp_path / "policy").mkdir()
    # Without the check, Pulumi would hang.
    done = subprocess.run(
        ["make", "STACK=dev", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "run: rm -rf policy/.venv && pulumi -C policy install" in done.stderr


def test_policy_pack_accepts_a_valid_stack(stack: Stack) -> None:
    configure(stack, TAGS)
    stack.program(VALID_PROGRAM)
    # In this preview the provider supplies the tags, and the group has no id.
    preview = run_pack(stack, "preview", fails=False)
    assert "✅ ant-media-cluster" in preview
    assert find_levels(preview) == {}


def test_every_rule_is_mandatory(stack: Stack) -> None:
    configure(stack, {tag: value for tag, value in TAGS.items() if tag != "owner"})
    stack.program("\n".join([VALID_PROGRAM, *VIOLATIONS.values()]))
    preview = run_pack(stack, "preview", config=PACK / "prod.json", fails=True)
    assert find_levels(preview) == dict.fromkeys(RULES, "mandatory")
    assert "opens 5000-5001/tcp on firewall-nodes, which cluster/port_table.py does not list" in preview
    assert "[mandatory]  protected-resources  (pulumi:pulumi:Stack: plugins-test)" in preview
    assert "hush-hush" not in preview


def test_missing_tag_alone_fails_the_preview(stack: Stack) -> None:
    configure(stack, {tag: value for tag, value in TAGS.items() if tag != "owner"})
    stack.program(VALID_PROGRAM)
    preview = run_pack(stack, "preview", fails=True)
    assert find_levels(preview) == {"tags": "mandatory"}
    # The provider tags security group rules too.
    assert "[mandatory]  tags  (aws:vpc:SecurityGroupIngressRule: cluster)" in preview


def test_policy_pack_config_overrides_properties_but_not_the_level(stack: Stack, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"instance-types": {"allowed": ["t3.small", "p5.*"]}}))
    configure(stack, TAGS)
    stack.program("\n".join([VALID_PROGRAM, 'instance("micro", instance_type="t3.micro")']))
    preview = run_pack(stack, "preview", config=config, fails=True)
    assert find_levels(preview) == {"instance-types": "mandatory"}
    assert "instanceType is t3.micro; use one of t3.small, p5.*" in preview


def test_violation_of_a_resource_fails_the_update_before_it_exists(stack: Stack) -> None:
    stack.program("\n".join(["import pulumi", VIOLATIONS["command-secrets"]]))
    update = run_pack(stack, "up", "--yes", "--skip-preview", fails=True)
    assert find_levels(update) == {"command-secrets": "mandatory"}
    assert "secret" not in stack.resources()


def test_violation_of_the_whole_stack_fails_the_update(stack: Stack) -> None:
    stack.program("import pulumi")
    update = run_pack(stack, "up", "--yes", "--skip-preview", config=PACK / "prod.json", fails=True)
    assert find_levels(update) == {"protected-resources": "mandatory"}
