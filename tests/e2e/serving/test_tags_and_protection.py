"""A reviewed plan, default tags and protection of a stack."""

import re
from pathlib import Path
from typing import Any

from tests.e2e.aws_account import AwsAccount
from tests.e2e.running_cluster import STACK, Cluster


def list_owner_tags(account: AwsAccount) -> dict[str, set[str]]:
    """Returns the values of the tag `owner` on the stack's resources, by kind."""
    of_stack = {"Name": "tag:Name", "Values": [f"{STACK}*"]}
    running = {"Name": "instance-state-name", "Values": ["running"]}
    attached = {"Name": "status", "Values": ["in-use"]}

    def describe(operation: str, key: str, *filters: dict[str, Any]) -> list[Any]:
        found: list[Any] = account.call("ec2", operation, Filters=[of_stack, *filters])[key]
        return found

    def get_owner(resource: Any) -> str:
        return next((tag["Value"] for tag in resource["Tags"] if tag["Key"] == "owner"), "untagged")

    reservations = describe("describe_instances", "Reservations", running)
    resources = {
        "vpc": describe("describe_vpcs", "Vpcs"),
        "subnet": describe("describe_subnets", "Subnets"),
        "internet gateway": describe("describe_internet_gateways", "InternetGateways"),
        "route table": describe("describe_route_tables", "RouteTables"),
        "security group": describe("describe_security_groups", "SecurityGroups"),
        "address": describe("describe_addresses", "Addresses"),
        "instance": [instance for reservation in reservations for instance in reservation["Instances"]],
        "volume": describe("describe_volumes", "Volumes", attached),
        "role": [account.call("iam", "list_role_tags", RoleName=f"{STACK}-load-balancer")],
        "secret": [account.call("secretsmanager", "describe_secret", SecretId=f"{STACK}-certificate")],
    }
    return {kind: {get_owner(resource) for resource in found} for kind, found in resources.items()}


def test_reviewed_plan_changes_default_tag_and_protection_of_every_resource_in_place(
    cluster: Cluster, account: AwsAccount, tmp_path: Path
) -> None:
    before, plan = cluster.list_machines(), tmp_path / "plan.json"
    kinds = list_owner_tags(account)
    assert kinds == {kind: {"operator"} for kind in kinds}
    cluster.pulumi("config", "set", "--path", "aws:defaultTags.tags.owner", "media-team").check()
    cluster.set_config("protect", "true")
    cluster.set_config("monitoringCidrs[1]", "203.0.113.21/32")
    comment = cluster.run("make", "preview", "FORMAT=markdown", f"PLAN={plan}").check()
    planned = re.search(r"### `sandbox`: 1 to create, (\d+) to change\n", comment)
    assert planned, comment[:500]
    output = cluster.run("make", "up", f"PLAN={plan}").check()
    updated = int(planned[1])
    summary = rf" +\+ 1 created\n +~ {updated} updated\n +{updated + 1} changes. \d+ unchanged\n"
    assert re.search(rf"\nUpdating \(sandbox\):\n[\s\S]*\nResources:\n{summary}", output)
    assert cluster.list_machines() == before
    # Volumes keep the tags of their creation.
    assert list_owner_tags(account) == {
        kind: {"operator" if kind == "volume" else "media-team"} for kind in kinds
    }


def test_protected_stack_refuses_destroy_and_replacement_of_its_database_until_unprotected(
    cluster: Cluster,
) -> None:
    before = cluster.list_machines()
    refused = cluster.pulumi("destroy", "--yes")
    assert refused.exit_code != 0
    for name in ("eip:Eip::load-balancer-ip", "instance:Instance::database"):
        assert f'{name}" cannot be deleted\n    because it is protected. To unprotect' in refused.output
    cluster.set_config("network.cidr", "10.9.0.0/16")
    refused = cluster.pulumi("preview")
    assert refused.exit_code != 0
    assert 'Instance::database"\n    as it is currently marked for protection' in refused.output
    assert cluster.list_machines() == before

    cluster.pulumi("state", "unprotect", "--all", "--yes").check()
    cluster.pulumi("destroy", "--preview-only").check()
    for setting in ("network", "protect"):
        cluster.pulumi("config", "rm", setting).check()
