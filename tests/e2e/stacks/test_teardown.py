"""`make down` deletes all resources of a stack after interrupted runs, lost machines and manual changes."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from operations.aws_account import Account as ProviderAccount
from operations.new_stack.creation import generate_ssh_private_key
from operations.recovery.untracked_resources import find_ids
from tests.e2e.aws_account import EC2_KINDS, IAM_KINDS, AwsAccount, Resource
from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import Cluster, CommandResult
from tests.e2e.small_stack import (
    EXCLUDE_SCRIPTS,
    SmallStack,
    interrupt,
    interrupt_twice,
    kill,
    terminate,
    while_paused,
)

CREATING_A_MACHINE = "Instance origin1 creating"
DELETING_A_MACHINE = "Instance origin1 deleting"
KILLED_AT = {
    "dead": CREATING_A_MACHINE,
    "unreachable": "SecurityGroup firewall-nodes creating",
    "hanging": "InstanceProfile load-balancer-identity-profile creating",
}
"""By stack: the message at which its first `up` is killed."""
EXCLUDE_HAPROXY = ("--exclude", "**::load-balancer-haproxy", "--exclude-dependents")
"""Options of an `up` that runs a script on every machine but does not set up HAProxy."""


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
def stacks(cluster: Cluster, resources_before: set[Resource]) -> Iterator[Mapping[str, Future[SmallStack]]]:
    """Stacks whose killed `up` a second `up` resumes while the first tests run. Only `dead` is completed."""

    def bring_up(name: str, network: int) -> SmallStack:
        stack = SmallStack(cluster, name, network)
        stack.run_until(KILLED_AT[name], kill, "up")
        assert "removed the stale lock of" in stack.recover().check()
        stack.up(*(() if name == "dead" else EXCLUDE_HAPROXY))
        return stack

    with ThreadPoolExecutor(len(KILLED_AT)) as threads:
        yield {name: threads.submit(bring_up, name, 71 + index) for index, name in enumerate(KILLED_AT)}


@pytest.mark.parametrize(
    ("name", "interruption", "network", "has_pending_operations"),
    [
        ("interrupted", interrupt, 81, False),
        ("terminated", terminate, 82, False),
        # The engine may complete its operation before the second signal arrives.
        ("interrupted-twice", interrupt_twice, 83, None),
        ("killed", kill, 84, True),
    ],
)
def test_destroy_after_an_interrupted_up(
    cluster: Cluster,
    name: str,
    interruption: Callable[[int], object],
    network: int,
    has_pending_operations: bool | None,
) -> None:
    stack = SmallStack(cluster, name, network)
    stack.run_until(CREATING_A_MACHINE, interruption, "up")
    recovery = stack.recover_and_destroy()
    assert has_pending_operations in (None, bool(recovery))


@pytest.mark.parametrize(("name", "interruption", "network"), [("halted", interrupt, 85), ("shot", kill, 86)])
def test_interrupted_destroy_can_be_resumed(
    cluster: Cluster, name: str, interruption: Callable[[int], object], network: int
) -> None:
    stack = SmallStack(cluster, name, network)
    stack.up(*EXCLUDE_SCRIPTS)
    stack.run_until(DELETING_A_MACHINE, interruption, "destroy")
    stack.recover_and_destroy()


def test_account_listing_covers_every_kind_of_resource(
    account: AwsAccount,
    resources_before: set[Resource],
    stacks: Mapping[str, Future[SmallStack]],
) -> None:
    for stack in stacks.values():
        stack.result()
    kinds = {kind for kind, _ in account.list_resources() - resources_before}
    assert kinds == {*EC2_KINDS, *IAM_KINDS, "instance", "policy", "record", "secret"} - {"key pair", "user"}


def test_recovery_finds_every_resource_of_a_stack_in_aws(
    internet: SandboxInternet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    resources = stacks["dead"].result().list_resources()
    provider = next(resource for resource in resources if resource["type"] == "pulumi:providers:aws")
    provider_account = ProviderAccount(provider["inputs"])
    aws_resources = [resource for resource in resources if resource["type"].startswith("aws:")]
    found = internet.call(
        lambda: {
            resource["urn"]: find_ids(provider_account, resource["type"], resource["inputs"])
            for resource in aws_resources
        }
    )
    assert found == {resource["urn"]: [resource["id"]] for resource in aws_resources}


def test_recovery_refuses_a_stack_with_a_running_update(stacks: Mapping[str, Future[SmallStack]]) -> None:
    stack = stacks["dead"].result()
    results: list[CommandResult] = []
    stack.run_until("refreshing", while_paused(lambda: results.append(stack.recover())), "refresh")
    assert results[0].exit_code == 1
    assert "the stack dead is currently locked by 1 lock(s)" in results[0].stderr
    assert stack.recover() == CommandResult(0, "", "")


def test_destroy_after_machines_stopped_and_resources_were_deleted_by_hand(
    cluster: Cluster, internet: SandboxInternet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    stack = stacks["dead"].result()
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


def test_destroy_of_an_unreachable_stack_with_changed_keys(
    cluster: Cluster, internet: SandboxInternet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    stack = stacks["unreachable"].result()
    group = stack.get_physical_ids()["firewall-load-balancer"]

    def revoke_all_rules() -> None:
        ec2 = cluster.aws_client("ec2")
        group_filter = [{"Name": "group-id", "Values": [group]}]
        for rule in ec2.describe_security_group_rules(Filters=group_filter)["SecurityGroupRules"]:
            revoke = (
                ec2.revoke_security_group_egress if rule["IsEgress"] else ec2.revoke_security_group_ingress
            )
            revoke(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])

    internet.call(revoke_all_rules)
    stack.set_secret("sshPrivateKey", generate_ssh_private_key())
    stack.set_secret("sshHostKeySeed", "0" * 64)
    stack.recover_and_destroy()


def test_destroy_with_hanging_machines(cluster: Cluster, stacks: Mapping[str, Future[SmallStack]]) -> None:
    """Their SSH ports accept connections but never respond."""
    stack = stacks["hanging"].result()
    for name in ("load-balancer", "origin1"):
        cluster.run_on(stack.machine(name).id, "pkill", "-STOP", "-o", "sshd").check()
    stack.recover_and_destroy()


def test_no_resource_of_these_stacks_remains(account: AwsAccount, resources_before: set[Resource]) -> None:
    assert account.list_resources() == resources_before
