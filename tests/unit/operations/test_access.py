"""Whether AWS's security group rules admit this machine to the load balancer, with rules as AWS describes them."""

import io
from ipaddress import IPv4Address
from typing import Any

import pytest

from operations.access import AccessProblem, OperatorAccess, find_own_address, read_access
from operations.stack_state import Connection, Machine, StackState

OWN = IPv4Address("203.0.113.20")
BALANCER = Machine(
    "urn:pulumi:dev::ant-media-cluster::aws:ec2/instance:Instance::load-balancer",
    Connection("198.51.100.1", 22, "deployer", "", ""),
    False,
    [],
    "",
)
STATE = StackState(
    [BALANCER], {}, {"sg-1": "firewall-load-balancer", "sg-2": "firewall-nodes"}, {}, {}, frozenset()
)
CONFIGURATION = {"ant-media-cluster:adminCidrs": {"objectValue": ["192.0.2.0/24"]}}


def rule(port: int, peer: dict[str, Any], **more: Any) -> dict[str, Any]:
    ports = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
    return {"GroupId": "sg-1", "IsEgress": False, **ports, **peer, **more}


def read(*rules: dict[str, Any], configuration: dict[str, Any] = CONFIGURATION) -> OperatorAccess:
    return read_access(STATE, configuration, rules, [22, 4444, 6080])


def admit(cidr: str) -> OperatorAccess:
    return read(*(rule(port, {"CidrIpv4": cidr}) for port in (22, 4444, 6080)))


def test_address_that_the_rules_admit_is_no_problem_whatever_the_settings_are() -> None:
    assert admit("203.0.113.0/24").find_problem([22, 4444, 6080], OWN) is None
    assert admit("0.0.0.0/0").find_problem([22], None) is None


def test_address_that_no_rule_admits_is_reported_with_the_command_that_adds_it() -> None:
    assert admit("192.0.2.0/24").find_problem([22, 4444], OWN) == AccessProblem(
        [22, 4444],
        "the load balancer's security group admits 192.0.2.0/24 to ports 22, 4444, and this machine's address "
        "203.0.113.20 is not among them. Run this from an address that is, or add this one: "
        "pulumi config set --stack dev --path 'ant-media-cluster:adminCidrs[1]' 203.0.113.20/32, then make up STACK=dev",
    )


def test_rules_of_aws_count_and_not_the_settings() -> None:
    configured = {"ant-media-cluster:adminCidrs": {"value": '["203.0.113.0/24"]'}}
    problem = read(rule(22, {"CidrIpv4": "192.0.2.0/24"}), configuration=configured).find_problem([22], OWN)
    assert problem
    assert problem.reason.endswith(
        "to port 22, and this machine's address 203.0.113.20 is not among them, although "
        "ant-media-cluster:adminCidrs has it: run make up STACK=dev"
    )


def test_unknown_address_is_reported_as_unknown() -> None:
    problem = admit("192.0.2.0/24").find_problem([22], None)
    assert problem
    assert (
        "https://checkip.amazonaws.com does not tell whether this machine's address is among them"
        in problem.reason
    )
    assert "'ant-media-cluster:adminCidrs[1]' ADDRESS/32, then make up" in problem.reason


@pytest.mark.parametrize(
    "other",
    [
        rule(22, {"CidrIpv4": "203.0.113.20/32"}, GroupId="sg-2"),
        rule(22, {"CidrIpv4": "203.0.113.20/32"}, IsEgress=True),
        rule(22, {"CidrIpv4": "203.0.113.20/32"}, IpProtocol="udp"),
        rule(23, {"CidrIpv4": "203.0.113.20/32"}),
        rule(22, {"CidrIpv6": "::/0"}),
        rule(22, {"ReferencedGroupInfo": {"GroupId": "sg-2"}}),
    ],
    ids=["other group", "egress", "UDP", "other port", "IPv6", "group"],
)
def test_rule_for_something_else_does_not_admit(other: dict[str, Any]) -> None:
    problem = read(other).find_problem([22], OWN)
    assert problem
    assert "admits nobody to port 22" in problem.reason


@pytest.mark.parametrize(
    "wide",
    [
        rule(0, {"CidrIpv4": "203.0.113.20/32"}, ToPort=1023),
        {"GroupId": "sg-1", "IsEgress": False, "IpProtocol": "-1", "CidrIpv4": "203.0.113.20/32"},
        # Which addresses a prefix list has is not asked.
        rule(22, {"PrefixListId": "pl-1"}),
    ],
    ids=["range of ports", "all protocols", "prefix list"],
)
def test_wide_rule_admits(wide: dict[str, Any]) -> None:
    assert read(wide).find_problem([22], OWN) is None


@pytest.mark.parametrize(
    ("answer", "address"), [(b"203.0.113.20\n", OWN), (b"<html>", None), (b"\xff", None), (None, None)]
)
def test_own_address_is_what_aws_answers(
    answer: bytes | None, address: IPv4Address | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_url(_: object, url: str, timeout: float) -> io.BytesIO:
        if answer is None:
            raise OSError("unreachable")
        return io.BytesIO(answer)

    monkeypatch.setattr("urllib.request.OpenerDirector.open", open_url)
    assert find_own_address() == address
