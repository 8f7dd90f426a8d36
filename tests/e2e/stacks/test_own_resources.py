"""What is the user's own: an Elastic IP, hooks, arm64, and a private subnet for the database. One stack has all of them.

It is destroyed when its machines do not respond, and the resources outlive it.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from operations.new_stack.creation import generate_ssh_private_key
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import SandboxInternet
from tests.e2e.cluster_nodes import ask_valkey
from tests.e2e.running_cluster import STATE, Cluster, wait_until
from tests.e2e.small_stack import SmallStack, kill
from tests.project import PROJECT

VPC = "10.90.0.0/16"
PUBLIC, PRIVATE = "10.90.0.0/24", "10.90.9.0/24"
HOOK = '#!/usr/bin/env bash\nset -euo pipefail\necho "$* {version}" >>/root/hook\n'


@pytest.fixture(scope="module")
def network(account: AwsAccount) -> dict[str, str]:
    """A VPC with a public subnet and a private one behind a NAT gateway, and a free Elastic IP: their ids."""

    def call(operation: str, **arguments: object) -> Any:
        return account.call("ec2", operation, **arguments)

    vpc = call("create_vpc", CidrBlock=VPC)["Vpc"]["VpcId"]
    gateway = call("create_internet_gateway")["InternetGateway"]["InternetGatewayId"]
    call("attach_internet_gateway", VpcId=vpc, InternetGatewayId=gateway)
    subnets = {
        cidr: call("create_subnet", VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"]
        for cidr in (PUBLIC, PRIVATE)
    }
    nat_address, address = (call("allocate_address", Domain="vpc") for _ in range(2))
    nat = call("create_nat_gateway", SubnetId=subnets[PUBLIC], AllocationId=nat_address["AllocationId"])
    nat_id = nat["NatGateway"]["NatGatewayId"]
    for cidr, target in ((PUBLIC, {"GatewayId": gateway}), (PRIVATE, {"NatGatewayId": nat_id})):
        table = call("create_route_table", VpcId=vpc)["RouteTable"]["RouteTableId"]
        call("create_route", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)
        call("associate_route_table", RouteTableId=table, SubnetId=subnets[cidr])
    return {
        "public": subnets[PUBLIC], "private": subnets[PRIVATE], "nat": nat_address["PublicIp"],
        "address": address["AllocationId"], "ip": address["PublicIp"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def hook() -> Iterator[Callable[[str], str]]:
    """Writes a hook into the repository and returns its path there."""
    path = PROJECT / "tests/e2e" / f"hook-{STATE.name}.sh"

    def write(version: str) -> str:
        path.write_text(HOOK.format(version=version))
        return str(path.relative_to(PROJECT))

    yield write
    path.unlink()


@pytest.fixture(scope="module")
def stack(cluster: Cluster, network: dict[str, str], hook: Callable[[str], str]) -> SmallStack:
    script = hook("first")
    return SmallStack(
        cluster,
        "own",
        90,
        network={"subnets": [{"id": network["public"], "cidr": PUBLIC}]},
        database={
            "subnet": {"id": "subnet-00000000000000000", "cidr": PRIVATE},
            "instanceType": "t4g.micro",
        },
        edges={"count": 1},
        loadBalancer={"instanceType": "t4g.micro", "elasticIp": "eipalloc-00000000000000000"},
        origins={"count": 1, "instanceType": "c7g.xlarge"},
        hooks={"node": script, "loadBalancer": script},
    )


def run_on(cluster: Cluster, stack: SmallStack, name: str, *command: str) -> str:
    return cluster.run_on(stack.machine(name).id, *command).check()


def read_registry(cluster: Cluster, stack: SmallStack) -> str:
    """Returns the id of the registry, read from the database."""
    id = ask_valkey(cluster, "GET ant-media-cluster:registry", machine=stack.machine("database").id).strip()
    assert re.fullmatch("[0-9a-f]{32}", id), id
    return id


def is_replica_of(cluster: Cluster, stack: SmallStack, database: str) -> bool:
    """True if the standby on the load balancer is a replica of the database."""
    ask = "printf 'AUTH probe -\\nROLE\\n' | valkey-cli"
    return run_on(cluster, stack, "load-balancer", "bash", "-c", ask).split()[1:3] == ["slave", database]


def describe_machine(account: AwsAccount, id: str) -> Any:
    (reservation,) = account.call("ec2", "describe_instances", InstanceIds=[id])["Reservations"]
    return reservation["Instances"][0]


def test_users_own_resources_are_used(
    cluster: Cluster,
    account: AwsAccount,
    internet: SandboxInternet,
    network: dict[str, str],
    stack: SmallStack,
) -> None:
    refused = stack.pulumi("preview").output
    assert "loadBalancer.elasticIp is eipalloc-00000000000000000: give the allocation id" in refused
    assert 'origins.instanceType is "c7g.xlarge", whose processor is arm64: Ant Media' in refused
    assert "database.subnet.id is subnet-" in refused

    stack.set_settings(
        database={"subnet": {"id": network["private"], "cidr": PRIVATE}, "instanceType": "t4g.micro"},
        loadBalancer={"instanceType": "t4g.micro", "elasticIp": network["address"]},
        origins={"count": 1},
    )
    stack.up()

    # The database downloaded its packages through the NAT gateway, and has no address of its own.
    assert not stack.machine("database").public_address
    checkip = ("curl", "-s", "https://checkip.amazonaws.com")
    assert run_on(cluster, stack, "database", *checkip).strip() == network["nat"]
    wait_until(lambda: stack.machine("load-balancer").public_address == network["ip"])
    assert internet.connect(network["ip"], 443, "203.0.113.20")
    for name, role in (("load-balancer", "load-balancer"), ("origin1", "origin"), ("edge1", "edge")):
        assert run_on(cluster, stack, name, "cat", "/root/hook") == f"{name} {role} first\n"
    machine = describe_machine(account, stack.machine("load-balancer").id)
    assert (machine["Architecture"], machine["InstanceType"]) == ("arm64", "t4g.micro")


def test_another_hook_address_and_architecture_reach_the_running_cluster_in_one_update(
    cluster: Cluster,
    account: AwsAccount,
    network: dict[str, str],
    hook: Callable[[str], str],
    stack: SmallStack,
) -> None:
    database = stack.machine("database")
    hook("second")
    stack.set_settings(
        database={"subnet": {"id": network["private"], "cidr": PRIVATE}, "instanceType": "t3.micro"},
        loadBalancer={"instanceType": "t4g.micro"},
    )
    stack.up()
    # Another content runs the hooks again.
    assert re.findall(r"\w+$", run_on(cluster, stack, "edge1", "cat", "/root/hook"), re.MULTILINE) == [
        "first",
        "second",
    ]
    replaced = stack.machine("database")
    assert (replaced.id != database.id, replaced.private_address) == (True, database.private_address)
    assert describe_machine(account, replaced.id)["Architecture"] == "x86_64"
    # The user's address is free again.
    resolve = cluster.operator_command("getent", "hosts", stack.domain)
    allocated = cluster.check_output(*resolve).split()[0]
    assert allocated != network["ip"]
    # The local cloud writes the list of machines a little later.
    wait_until(lambda: stack.machine("load-balancer").public_address == allocated)

    # The database's new machine, at another address, gets its data from the standby.
    registry = read_registry(cluster, stack)
    stack.set_settings(
        database={"instanceType": "t3.micro"},
        loadBalancer={"instanceType": "t4g.micro", "elasticIp": network["address"]},
    )
    stack.up()
    moved = stack.machine("database")
    assert moved.private_address != replaced.private_address
    assert read_registry(cluster, stack) == registry
    wait_until(lambda: is_replica_of(cluster, stack, moved.private_address))
    wait_until(lambda: stack.machine("load-balancer").public_address == network["ip"])
    assert stack.pulumi("preview", "--expect-no-changes").exit_code == 0


def test_killed_destroy_of_an_unreachable_stack_with_changed_keys_and_hanging_machines_can_be_resumed(
    cluster: Cluster, account: AwsAccount, network: dict[str, str], stack: SmallStack
) -> None:
    """Nothing that deletes may connect to a machine."""
    for name in ("load-balancer", "origin1"):
        run_on(cluster, stack, name, "pkill", "-STOP", "-o", "sshd")
    revoke_all_rules(account, stack.get_physical_ids()["firewall-load-balancer"])
    stack.set_secret("sshPrivateKey", generate_ssh_private_key())
    stack.set_secret("sshHostKeySeed", "0" * 64)
    assert "Dial " not in stack.run_until("Instance origin1 deleting", kill, "destroy")
    stack.recover_and_destroy()
    (address,) = account.call("ec2", "describe_addresses", AllocationIds=[network["address"]])["Addresses"]
    assert "AssociationId" not in address


def revoke_all_rules(account: AwsAccount, group: str) -> None:
    group_filter = [{"Name": "group-id", "Values": [group]}]
    rules = account.call("ec2", "describe_security_group_rules", Filters=group_filter)["SecurityGroupRules"]
    for rule in rules:
        direction = "egress" if rule["IsEgress"] else "ingress"
        account.call(
            "ec2",
            f"revoke_security_group_{direction}",
            GroupId=group,
            SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]],
        )
