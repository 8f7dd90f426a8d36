"""Runs the policy pack in the real engine. tests/unit/policy/test_rules.py tests each rule."""

from tests.project import PROJECT
from tests.sandbox.plugins.plugin_stack import Stack

PACK = PROJECT / "policy"
# The resources that pulumi_aws and pulumi_command would register; importing those packages takes a second.
PROGRAM = """\
import pulumi

group = pulumi.CustomResource("aws:ec2/securityGroup:SecurityGroup", "firewall-nodes", {"vpcId": "vpc-1"})
pulumi.CustomResource(
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "cluster",
    {
        "securityGroupId": group.id,
        "ipProtocol": "tcp",
        "fromPort": 5000,
        "toPort": 5000,
        "referencedSecurityGroupId": group.id,
    },
)
pulumi.CustomResource(
    "command:local:Command",
    "script",
    {"create": "true", "stdin": pulumi.Output.secret("hush-hush")},
)
"""
TAGS = {"project": "plugins", "stack": "test", "owner": "media-team"}


def test_policy_pack_accepts_valid_stack_and_refuses_violations(stack: Stack) -> None:
    stack.configure(
        {
            "aws:region": "eu-west-1",
            "aws:accessKey": "test",
            "aws:secretKey": "test",
            "aws:skipCredentialsValidation": True,
            "aws:skipRequestingAccountId": True,
            "aws:defaultTags": {"tags": TAGS},
        }
    )
    stack.program(PROGRAM)
    # In this preview the provider supplies the tags, and the group has no id.
    assert "✅ ant-media-cluster" in stack.run("preview", "--policy-pack", str(PACK))

    stack.program(
        PROGRAM.replace('"toPort": 5000', '"toPort": 5001').replace(
            '"create": "true"', '"create": pulumi.Output.secret("true")'
        )
    )
    preview = stack.run(
        "preview", "--policy-pack", str(PACK), "--policy-pack-config", str(PACK / "prod.json"), fails=True
    )
    assert "[mandatory]  port-table  (aws:vpc:SecurityGroupIngressRule: cluster)" in preview
    assert "opens 5000-5001/tcp on firewall-nodes, which cluster/port_table.py does not list" in preview
    assert "[mandatory]  protected-resources  (pulumi:pulumi:Stack: plugins-test)" in preview
    assert "[mandatory]  command-secrets  (command:local:Command: script)" in preview
    assert "hush-hush" not in preview
