"""What the tags of a stack reach, and what its protection keeps."""

import re
from typing import Any

from tests.e2e.clients import Internet
from tests.e2e.running_cluster import STACK, Cluster


def owners(cluster: Cluster, internet: Internet) -> dict[str, set[str]]:
    """The tag `owner` by kind of resource, of all that the stack has at AWS."""
    ec2, iam, secrets = (cluster.aws(service) for service in ("ec2", "iam", "secretsmanager"))
    of_stack = [{"Name": "tag:Name", "Values": [f"{STACK}*"]}]

    def look() -> dict[str, list[Any]]:
        return {
            "vpc": ec2.describe_vpcs(Filters=of_stack)["Vpcs"],
            "subnet": ec2.describe_subnets(Filters=of_stack)["Subnets"],
            "gateway": ec2.describe_internet_gateways(Filters=of_stack)["InternetGateways"],
            "routes": ec2.describe_route_tables(Filters=of_stack)["RouteTables"],
            "group": ec2.describe_security_groups(Filters=of_stack)["SecurityGroups"],
            "address": ec2.describe_addresses(Filters=of_stack)["Addresses"],
            "machine": [
                machine
                for reservation in ec2.describe_instances(
                    Filters=[*of_stack, {"Name": "instance-state-name", "Values": ["running"]}]
                )["Reservations"]
                for machine in reservation["Instances"]
            ],
            "volume": ec2.describe_volumes(Filters=[*of_stack, {"Name": "status", "Values": ["in-use"]}])[
                "Volumes"
            ],
            "role": [iam.list_role_tags(RoleName=f"{STACK}-load-balancer")],
            "secret": [secrets.describe_secret(SecretId=f"{STACK}-certificate")],
        }

    def owner(resource: Any) -> str:
        return next((tag["Value"] for tag in resource["Tags"] if tag["Key"] == "owner"), "nobody")

    return {kind: {owner(resource) for resource in found} for kind, found in internet.do(look).items()}


def test_a_changed_tag_reaches_everything_and_replaces_nothing(cluster: Cluster, internet: Internet) -> None:
    before = cluster.machines()
    kinds = owners(cluster, internet)
    assert kinds == {kind: {"operator"} for kind in kinds}
    cluster.must("sandbox/bin/pulumi", "config", "set", "--path", "aws:defaultTags.tags.owner", "media-team")
    cluster.set("protect", "true")
    assert re.search(r"Resources:\n +~ \d+ updated\n +\d+ unchanged\n", cluster.update())
    assert cluster.machines() == before
    # A volume keeps what it was made with.
    assert owners(cluster, internet) == {
        kind: {"operator" if kind == "volume" else "media-team"} for kind in kinds
    }


def test_a_protected_stack_is_not_destroyed_nor_its_database_replaced_until_it_is_unprotected(
    cluster: Cluster,
) -> None:
    before = cluster.machines()
    refused = cluster.pulumi("destroy", "--yes")
    assert refused.status != 0
    for name in ("eip:Eip::load-balancer-ip", "instance:Instance::database"):
        assert f'{name}" cannot be deleted\n    because it is protected. To unprotect' in refused.output
    cluster.set("network.cidr", "10.9.0.0/16")
    refused = cluster.pulumi("preview")
    assert refused.status != 0
    assert 'Instance::database"\n    as it is currently marked for protection' in refused.output
    assert cluster.machines() == before

    cluster.must("sandbox/bin/pulumi", "state", "unprotect", "--all", "--yes")
    assert cluster.pulumi("destroy", "--preview-only").status == 0
    for setting in ("network", "protect"):
        cluster.must("sandbox/bin/pulumi", "config", "rm", setting)
