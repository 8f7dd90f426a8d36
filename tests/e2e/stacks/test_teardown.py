"""`make down` deletes all resources of a stack after interrupted runs, lost machines and manual changes."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from operations.aws_account import AwsClients
from operations.recovery.untracked_resources import find_ids
from tests.e2e.aws_account import EC2_KINDS, IAM_KINDS, AwsAccount, Resource
from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import Cluster, CommandResult
from tests.e2e.small_stack import (
    EXCLUDE_SCRIPTS,
    SmallStack,
    interrupt_twice,
    kill,
    while_paused,
)

CREATING_A_MACHINE = "Instance origin1 creating"
KILLED_AT = (
    (
        "InstanceProfile load-balancer-identity-profile creating",
        "--exclude",
        "**::network-vpc",
        "--exclude-dependents",
    ),
    ("SecurityGroup firewall-nodes creating",),
    (CREATING_A_MACHINE,),
)
"""Messages at which the first updates of the stack `dead` are killed, with their options."""


def delete_record(route53: Any, name: str) -> None:
    (zone,) = route53.list_hosted_zones()["HostedZones"]
    records = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    (record,) = (record for record in records if record["Name"] == name)
    changes = {"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]}
    route53.change_resource_record_sets(HostedZoneId=zone["Id"], ChangeBatch=changes)


@pytest.fixture(scope="module")
def resources_before(account: AwsAccount) -> set[Resource]:
    """The account's resources without this module's stacks."""
    return account.list_resources()


@pytest.fixture(scope="module", autouse=True)
def resumed(cluster: Cluster, resources_before: set[Resource]) -> Iterator[Future[SmallStack]]:
    """The stack `dead`. Its first updates were killed, and another completes it while the first test runs."""

    def bring_up() -> SmallStack:
        stack = SmallStack(cluster, "dead", 71)
        for message, *options in KILLED_AT:
            stack.run_until(message, kill, "up", *options)
            assert "removed the stale lock of" in stack.recover().check()
        stack.up()
        return stack

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(bring_up)


def test_destroy_after_an_interrupted_up(cluster: Cluster) -> None:
    stack = SmallStack(cluster, "interrupted", 81)
    exclude_origin = (*EXCLUDE_SCRIPTS, "--exclude", "**::origin1")
    stack.run_until("Instance load-balancer creating", interrupt_twice, "up", *exclude_origin)
    # The engine may complete its operation before the second signal arrives.
    stack.recover().check()
    stack.run_until(CREATING_A_MACHINE, kill, "up", *EXCLUDE_SCRIPTS)
    assert stack.recover_and_destroy() != ""


def test_account_listing_covers_every_kind_of_resource(
    account: AwsAccount,
    resources_before: set[Resource],
    resumed: Future[SmallStack],
) -> None:
    resumed.result()
    kinds = {kind for kind, _ in account.list_resources() - resources_before}
    assert kinds == {*EC2_KINDS, *IAM_KINDS, "instance", "policy", "record", "secret"} - {"key pair", "user"}


def test_recovery_finds_every_resource_of_a_stack_in_aws(
    internet: SandboxInternet, resumed: Future[SmallStack]
) -> None:
    resources = resumed.result().list_resources()
    provider = next(resource for resource in resources if resource["type"] == "pulumi:providers:aws")
    aws = AwsClients(provider["inputs"])
    aws_resources = [resource for resource in resources if resource["type"].startswith("aws:")]
    found = internet.call(
        lambda: {
            resource["urn"]: find_ids(aws, resource["type"], resource["inputs"]) for resource in aws_resources
        }
    )
    assert found == {resource["urn"]: [resource["id"]] for resource in aws_resources}


def test_recovery_refuses_a_stack_with_a_running_update(resumed: Future[SmallStack]) -> None:
    stack = resumed.result()
    results: list[CommandResult] = []
    stack.run_until("refreshing", while_paused(lambda: results.append(stack.recover())), "refresh")
    assert results[0].exit_code == 1
    assert "the stack dead is currently locked by 1 lock(s)" in results[0].stderr
    assert stack.recover() == CommandResult(0, "", "")


def test_destroy_after_machines_stopped_and_resources_were_deleted_by_hand(
    cluster: Cluster, internet: SandboxInternet, resumed: Future[SmallStack]
) -> None:
    stack = resumed.result()
    ids = stack.get_physical_ids()

    def delete_by_hand() -> None:
        ec2 = cluster.aws_client("ec2")
        ec2.stop_instances(InstanceIds=[stack.machine("load-balancer").id])
        ec2.terminate_instances(InstanceIds=[stack.machine("origin1").id])
        ec2.revoke_security_group_ingress(
            GroupId=ids["firewall-nodes"], SecurityGroupRuleIds=[ids["firewall-nodes-ssh"]]
        )
        (address,) = ec2.describe_addresses(AllocationIds=[ids["load-balancer-ip"]])["Addresses"]
        ec2.disassociate_address(AssociationId=address["AssociationId"])
        ec2.release_address(AllocationId=address["AllocationId"])
        delete_record(cluster.aws_client("route53"), f"{stack.domain}.")

    internet.call(delete_by_hand)
    stack.recover_and_destroy()


def test_no_resource_of_these_stacks_remains(account: AwsAccount, resources_before: set[Resource]) -> None:
    assert account.list_resources() == resources_before
