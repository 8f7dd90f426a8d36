"""Changes of the network: what AWS would refuse halfway is refused before anything changes."""

from typing import Any

import pytest

from tests.unit.program import Run, run

SUBNET = "subnet-0aaaaaaaaaaaaaaaa"
EXISTING = {"subnets": [{"id": SUBNET, "cidr": "10.1.0.0/24"}]}
SUBNETS = {SUBNET: ("10.1.0.0/24", "vpc-1")}


@pytest.mark.parametrize(
    ("cloud", "settings", "message"),
    [
        (
            Run(subnets=SUBNETS, subnet_name="ant-media-cluster-unit-eu-west-1a"),
            {"network": EXISTING},
            f"network.subnets[0].id is {SUBNET}: this stack created it, and would delete it with its VPC",
        ),
        (
            Run(subnets=SUBNETS, default_route=None),
            {"network": EXISTING},
            f"network.subnets[0].id is {SUBNET}: it has no route to an internet gateway",
        ),
        (
            Run(subnets=SUBNETS, default_route={"natGatewayId": "nat-1"}),
            {"network": EXISTING},
            f"network.subnets[0].id is {SUBNET}: it has no route to an internet gateway",
        ),
        (
            Run(subnets=SUBNETS, used_addresses={"10.1.0.4": "", "10.1.0.9": "origin2", "10.1.0.77": "other"}),
            {"network": EXISTING},
            "network: load-balancer needs the address 10.1.0.4, which eni-10.1.0.4 (NAT gateway) uses; free the address",
        ),
        (
            Run(current_zones={"10.0.0.0/28": "eu-west-1a"}, used_addresses={"10.0.0.11": "origin4", "10.0.0.8": "origin1"}),
            {"network": {"cidr": "10.0.0.0/25", "zones": 1}, "origins": {"count": 1}, "edges": {"count": 4}},
            "edges.count is 4: edge4 needs the address 10.0.0.11, which ant-media-cluster-unit-origin4 (i-origin4) has until "
            "an update deletes it; reduce origins.count in one update, and raise edges.count in the next",
        ),
    ],
    ids=["own subnet", "no route", "NAT gateway", "used address", "address of a leaving node"],
)  # fmt: skip
def test_network_that_cannot_take_the_machines_is_refused_in_the_preview(
    cloud: Run, settings: dict[str, Any], message: str
) -> None:
    cloud.dry_run = True
    with pytest.raises(SystemExit):
        run(cloud, **settings)
    (error,) = cloud.errors
    assert f"  ant-media-cluster:{message}" in error
    assert error.count("\n") == 1  # no other problem
    assert not cloud.resources


def test_node_is_drained_before_it_moves_to_another_zone() -> None:
    cloud = run(Run(running_addresses=("10.0.32.9",)), network={"zones": 1})
    assert cloud.of_type("aws:ec2/instance:Instance")["origin2"]["privateIp"] == "10.0.0.9"
    assert "origin2-drain" in cloud.dependencies["ant-media:machine:Machine origin2"]
