"""What is the user's own: an Elastic IP, hooks, arm64, and a private subnet for the database. One stack has all of them."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import STATE, Cluster
from tests.e2e.small_stack import SmallStack
from tests.project import PROJECT

VPC = "10.90.0.0/16"
PUBLIC, PRIVATE = "10.90.0.0/24", "10.90.9.0/24"
HOOK = '#!/usr/bin/env bash\nset -euo pipefail\necho "$* {version}" >>/root/hook\n'


@pytest.fixture
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


@pytest.fixture
def hook() -> Iterator[Callable[[str], str]]:
    """Writes a hook into the repository and returns its path there."""
    path = PROJECT / "tests/e2e" / f"hook-{STATE.name}.sh"

    def write(version: str) -> str:
        path.write_text(HOOK.format(version=version))
        return str(path.relative_to(PROJECT))

    yield write
    path.unlink()


def test_users_own_resources_are_used_and_outlive_the_stack(
    cluster: Cluster,
    account: AwsAccount,
    internet: SandboxInternet,
    network: dict[str, str],
    hook: Callable[[str], str],
) -> None:
    stack = SmallStack(cluster, "own", 90)

    def set_config(key: str, value: object) -> None:
        stack.pulumi("config", "set", "--path", f"ant-media-cluster:{key}", str(value)).check()

    def run_on(name: str, *command: str) -> str:
        return cluster.run_on(f"ant-media-cluster-own-{name}", *command).check()

    stack.pulumi("config", "rm", "ant-media-cluster:network").check()
    set_config("network.subnets[0].id", network["public"])
    set_config("network.subnets[0].cidr", PUBLIC)
    set_config("database.subnet.id", "subnet-00000000000000000")
    set_config("database.subnet.cidr", PRIVATE)
    set_config("edges.count", 1)
    for machine in ("loadBalancer", "database"):
        set_config(f"{machine}.instanceType", "t4g.micro")
    set_config("loadBalancer.elasticIp", "eipalloc-00000000000000000")
    set_config("origins.instanceType", "c7g.xlarge")
    set_config("hooks.node", "hooks/none.sh")
    refused = stack.pulumi("preview").output
    assert 'hooks.node is "hooks/none.sh": this file cannot be read' in refused
    for key in ("node", "loadBalancer"):
        set_config(f"hooks.{key}", hook("first"))
    refused = stack.pulumi("preview").output
    assert "loadBalancer.elasticIp is eipalloc-00000000000000000: give the allocation id" in refused
    assert 'origins.instanceType is "c7g.xlarge", whose processor is arm64: Ant Media' in refused
    assert "database.subnet.id is subnet-" in refused

    set_config("database.subnet.id", network["private"])
    set_config("loadBalancer.elasticIp", network["address"])
    set_config("origins.instanceType", "c5.xlarge")
    comment = cluster.run(
        ".venv/bin/python",
        "-m",
        "operations.preview",
        "own",
        "sandbox/bin/pulumi",
        "preview",
        "--json",
        "--show-sames",
        stack="own",
    ).stdout
    assert "`load-balancer-hook`" in comment
    assert "(`instance-types`)" not in comment
    assert f"{network['address']}" in comment
    stack.up()

    # The database downloaded its packages through the NAT gateway, and has no address of its own.
    assert not stack.machine("database").public_address
    checkip = ("curl", "-s", "https://checkip.amazonaws.com")
    assert run_on("database", *checkip).strip() == network["nat"]
    assert stack.machine("load-balancer").public_address == network["ip"]
    assert internet.connect(network["ip"], 443, "203.0.113.20")
    for name, role in (("load-balancer", "load-balancer"), ("origin1", "origin"), ("edge1", "edge")):
        assert run_on(name, "cat", "/root/hook") == f"{name} {role} first\n"
    (machine,) = account.call("ec2", "describe_instances", InstanceIds=[stack.machine("load-balancer").id])[
        "Reservations"
    ][0]["Instances"]
    assert (machine["Architecture"], machine["InstanceType"]) == ("arm64", "t4g.micro")

    # Nothing changes without a change; another content runs the hooks again, a failing one fails the update and runs again.
    assert stack.pulumi("preview", "--expect-no-changes").exit_code == 0
    hook('second"; exit 3; echo "')
    failed = stack.pulumi("up", "--yes", "--skip-preview")
    assert failed.exit_code != 0
    assert "The hook ended with exit code 3" in failed.output
    hook("third")
    stack.up()
    assert re.findall(r"\w+$", run_on("edge1", "cat", "/root/hook"), re.MULTILINE)[-1] == "third"

    # Another address and another architecture, in one update of the running cluster. The user's address is free again.
    database = stack.machine("database")
    stack.pulumi("config", "rm", "--path", "ant-media-cluster:loadBalancer.elasticIp").check()
    set_config("database.instanceType", "t3.micro")
    stack.up()
    replaced = stack.machine("database")
    assert (replaced.id != database.id, replaced.private_address) == (True, database.private_address)
    (machine,) = account.call("ec2", "describe_instances", InstanceIds=[replaced.id])["Reservations"][0][
        "Instances"
    ]
    assert machine["Architecture"] == "x86_64"
    allocated = stack.machine("load-balancer").public_address
    assert allocated != network["ip"]
    resolve = cluster.operator_command("getent", "hosts", stack.domain)
    assert cluster.check_output(*resolve).split()[0] == allocated
    set_config("loadBalancer.elasticIp", network["address"])
    stack.up()
    assert stack.machine("load-balancer").public_address == network["ip"]

    stack.recover_and_destroy()
    (address,) = account.call("ec2", "describe_addresses", AllocationIds=[network["address"]])["Addresses"]
    assert "AssociationId" not in address
