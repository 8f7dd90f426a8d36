"""A stack goes, whatever became of its machines, of its parts and of the runs before, and nothing of it stays."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from operations.new_stack.__main__ import ssh_private_key
from operations.recovery.untracked_resources import Account, find
from tests.e2e.aws_account import IN_EC2, IN_IAM, Thing, scan
from tests.e2e.clients import Internet
from tests.e2e.running_cluster import Cluster, Done
from tests.e2e.small_stack import (
    WITHOUT_SCRIPTS,
    SmallStack,
    interrupt,
    interrupt_twice,
    kill,
    paused,
    terminate,
)

CREATING_A_MACHINE = "Instance origin1 creating"
DELETING_A_MACHINE = "Instance origin1 deleting"
KILLED_AT = {
    "dead": CREATING_A_MACHINE,
    "unreachable": "SecurityGroup firewall-nodes creating",
    "hanging": "InstanceProfile load-balancer-identity-profile creating",
}
"""Stacks whose first `up` is killed: what it was doing then."""
WITHOUT_HAPROXY = ("--exclude", "**::load-balancer-haproxy", "--exclude-dependents")
"""For an `up` that has run something on every machine, and goes no further."""


def delete_record(route53: Any, name: str) -> None:
    (zone,) = route53.list_hosted_zones()["HostedZones"]
    records = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    (record,) = (one for one in records if one["Name"] == name)
    changes = {"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]}
    route53.change_resource_record_sets(HostedZoneId=zone["Id"], ChangeBatch=changes)


@pytest.fixture(scope="module")
def before(cluster: Cluster, internet: Internet) -> set[Thing]:
    """The account without this module's stacks."""
    return internet.do(lambda: scan(cluster.aws))


@pytest.fixture(scope="module", autouse=True)
def stacks(cluster: Cluster, before: set[Thing]) -> Iterator[Mapping[str, Future[SmallStack]]]:
    """Stacks that a second `up` goes on with, while the first tests run. That of the dead is completed."""

    def bring_up(name: str, network: int) -> SmallStack:
        stack = SmallStack(cluster, name, network)
        stack.meet(KILLED_AT[name], kill, "up")
        recovered = stack.recover()
        assert recovered.status == 0, recovered.output
        assert "cancelled the run of" in recovered.stdout
        stack.up(*(() if name == "dead" else WITHOUT_HAPROXY))
        return stack

    with ThreadPoolExecutor(len(KILLED_AT)) as threads:
        yield {name: threads.submit(bring_up, name, 71 + index) for index, name in enumerate(KILLED_AT)}


@pytest.mark.parametrize(
    ("name", "how", "network", "unfinished"),
    [
        ("interrupted", interrupt, 81, False),
        ("terminated", terminate, 82, False),
        # The engine may be done with what it began before the second one comes.
        ("interrupted-twice", interrupt_twice, 83, None),
        ("killed", kill, 84, True),
    ],
)
def test_stack_goes_whose_up_was_cut_off(
    cluster: Cluster, name: str, how: Any, network: int, unfinished: bool | None
) -> None:
    stack = SmallStack(cluster, name, network)
    assert stack.meet(CREATING_A_MACHINE, how, "up") < 30
    recovered = stack.recover_and_destroy(within=45)
    assert unfinished in (None, bool(recovered))


@pytest.mark.parametrize(("name", "how", "network"), [("halted", interrupt, 85), ("shot", kill, 86)])
def test_destroy_that_was_cut_off_goes_on(cluster: Cluster, name: str, how: Any, network: int) -> None:
    stack = SmallStack(cluster, name, network)
    stack.up(*WITHOUT_SCRIPTS)
    assert stack.meet(DELETING_A_MACHINE, how, "destroy") < 30
    stack.recover_and_destroy(within=45)


def test_a_scan_sees_every_kind_that_a_stack_consists_of(
    cluster: Cluster, internet: Internet, before: set[Thing], stacks: Mapping[str, Future[SmallStack]]
) -> None:
    for stack in stacks.values():
        stack.result(timeout=180)
    seen = {kind for kind, _ in internet.do(lambda: scan(cluster.aws)) - before}
    assert seen == {*IN_EC2, *IN_IAM, "instance", "policy", "record", "secret"} - {"key pair", "user"}


def test_all_that_a_stack_consists_of_can_be_found_again(
    internet: Internet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    """As recovery has to, where a run was killed."""
    resources = stacks["dead"].result().state()["resources"]
    provider = next(one for one in resources if one["type"] == "pulumi:providers:aws")
    account = Account(provider["inputs"])
    ours = [one for one in resources if one["type"].startswith("aws:")]
    found = internet.do(lambda: {one["urn"]: find(account, one["type"], one["inputs"]) for one in ours})
    assert found == {one["urn"]: [one["id"]] for one in ours}


def test_recovery_leaves_a_run_alone_that_goes_on(stacks: Mapping[str, Future[SmallStack]]) -> None:
    stack = stacks["dead"].result()
    answers: list[Done] = []
    stack.meet("refreshing", paused(lambda: answers.append(stack.recover())), "refresh")
    assert answers[0].status == 1
    assert "the stack dead is currently locked by 1 lock(s)" in answers[0].stderr
    assert stack.recover() == Done(0, "", "")


def test_stack_goes_whose_parts_are_dead_or_were_deleted_by_hand(
    cluster: Cluster, internet: Internet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    stack = stacks["dead"].result()
    ids = stack.ids()

    def by_hand() -> None:
        ec2 = cluster.aws("ec2")
        ec2.stop_instances(InstanceIds=[stack.machine("load-balancer").id])
        ec2.terminate_instances(InstanceIds=[stack.machine("origin1").id])
        ec2.revoke_security_group_ingress(
            GroupId=ids["firewall-nodes"], SecurityGroupRuleIds=[ids["firewall-nodes-ssh"]]
        )
        (address,) = ec2.describe_addresses(AllocationIds=[ids["load-balancer-ip"]])["Addresses"]
        ec2.disassociate_address(AssociationId=address["AssociationId"])
        ec2.release_address(AllocationId=address["AllocationId"])
        delete_record(cluster.aws("route53"), f"{stack.domain}.")

    internet.do(by_hand)
    stack.recover_and_destroy(within=45)


def test_stack_goes_that_cannot_be_reached_and_whose_keys_are_others_by_now(
    cluster: Cluster, internet: Internet, stacks: Mapping[str, Future[SmallStack]]
) -> None:
    stack = stacks["unreachable"].result()
    group = stack.ids()["firewall-load-balancer"]

    def drop_everything() -> None:
        ec2 = cluster.aws("ec2")
        of_group = [{"Name": "group-id", "Values": [group]}]
        for rule in ec2.describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]:
            revoke = (
                ec2.revoke_security_group_egress if rule["IsEgress"] else ec2.revoke_security_group_ingress
            )
            revoke(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])

    internet.do(drop_everything)
    stack.set_secret("sshPrivateKey", ssh_private_key())
    stack.set_secret("sshHostKeySeed", "0" * 64)
    stack.recover_and_destroy(within=45)


def test_stack_goes_whose_machines_hang(cluster: Cluster, stacks: Mapping[str, Future[SmallStack]]) -> None:
    """They accept connections and then never say a word."""
    stack = stacks["hanging"].result()
    for name in ("load-balancer", "origin1"):
        stopped = cluster.shell(stack.machine(name).id, "pkill", "-STOP", "-o", "sshd")
        assert stopped.status == 0, stopped.output
    stack.recover_and_destroy(within=45)


def test_nothing_of_all_these_stacks_is_left(
    cluster: Cluster, internet: Internet, before: set[Thing]
) -> None:
    assert internet.do(lambda: scan(cluster.aws)) == before
