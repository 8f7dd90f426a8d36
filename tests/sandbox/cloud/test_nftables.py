"""The nftables rules of machines and VPCs, as whole texts."""

import subprocess

import pytest

from sandbox.cloud import network, security_groups
from sandbox.cloud.security_groups import Group, Rule
from tests.sandbox.cloud.instances import instance


def is_accepted_by_nft(text: str) -> bool:
    command = ["unshare", "--net", "nft", "--check", "--file", "-"]
    return subprocess.run(command, input=text, text=True, check=False, timeout=300).returncode == 0


def test_security_groups_become_nftables_rules() -> None:
    balancer = Group(
        id="sg-2",
        name="load-balancer",
        ingress=(
            Rule("tcp", 443, 443, networks=("0.0.0.0/0",)),
            Rule("tcp", 22, 22, networks=("203.0.113.20/32",)),
            Rule("udp", 50000, 60000, networks=("0.0.0.0/0",)),
            Rule("icmp", 8, -1, networks=("10.0.0.0/16",)),
            Rule("tcp", 1935, 1935, networks=("203.0.113.0/24", "203.0.113.20/32"), groups=("sg-1",)),
            Rule("tcp", 9999, 9999, groups=("sg-empty",)),
        ),
        egress=(Rule("-1", networks=("0.0.0.0/0",)),),
    )
    nodes = Group(id="sg-1", name="nodes", ingress=(Rule("tcp", 0, 65535, groups=("sg-1", "sg-2")),))
    text = security_groups.render([balancer, nodes], {"sg-1": ["10.0.0.9", "10.0.0.8"], "sg-2": ["10.0.0.4"]})
    assert (
        text
        == """\
table inet security_groups
delete table inet security_groups
table inet security_groups {
  chain ingress {
    type filter hook input priority filter; policy drop;
    iifname lo accept
    ct state established,related accept
    # sg-1 nodes
    ip saddr { 10.0.0.4/32, 10.0.0.8/31 } meta l4proto tcp accept
    # sg-2 load-balancer
    ip saddr { 10.0.0.0/16 } icmp type 8 accept
    ip saddr { 203.0.113.20/32 } tcp dport 22 accept
    ip saddr { 0.0.0.0/0 } tcp dport 443 accept
    ip saddr { 10.0.0.8/31, 203.0.113.0/24 } tcp dport 1935 accept
    ip saddr { 0.0.0.0/0 } udp dport 50000-60000 accept
  }
  chain egress {
    type filter hook output priority filter; policy drop;
    oifname lo accept
    ct state established,related accept
    # the VPC's resolver and the metadata service: security groups do not apply to them
    ip daddr 203.0.113.53 meta l4proto { tcp, udp } th dport 53 accept
    ip daddr 169.254.169.254 tcp dport 80 accept
    # sg-1 nodes
    # sg-2 load-balancer
    ip daddr { 0.0.0.0/0 } accept
  }
}
"""
    )
    assert is_accepted_by_nft(text)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("6", 80, 80), "tcp dport 80 "),
        (Rule("17", -1, -1), "meta l4proto udp "),
        (Rule("icmp", -1, -1), "meta l4proto icmp "),
        (Rule("icmp", 3, 4), "icmp type 3 icmp code 4 "),
        (Rule("50", -1, -1), "meta l4proto 50 "),
    ],
)
def test_rule_matches_protocol_and_ports(rule: Rule, expected: str) -> None:
    permitted = Rule(rule.protocol, rule.from_port, rule.to_port, networks=("10.0.0.0/8",))
    text = security_groups.render([Group("sg-1", "g", ingress=(permitted,))], {})
    assert f"    ip saddr {{ 10.0.0.0/8 }} {expected}accept\n" in text
    assert is_accepted_by_nft(text)


def test_group_name_cannot_inject_rules() -> None:
    text = security_groups.render([Group("sg-1", "x\n    accept")], {})
    assert "\n    accept" not in text


def test_vpc_nat_becomes_nftables_rules() -> None:
    text = network.render_vpc([instance(9, None), instance(8, "198.51.100.2"), instance(4, "198.51.100.1")])
    assert (
        text
        == """\
table ip vpc
delete table ip vpc
table ip vpc {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    dnat to ip daddr map { 198.51.100.1 : 10.0.0.4, 198.51.100.2 : 10.0.0.8 }
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "internet" snat to ip saddr map { 10.0.0.4 : 198.51.100.1, 10.0.0.8 : 198.51.100.2 }
    ct status dnat snat to ip saddr map { 10.0.0.4 : 198.51.100.1, 10.0.0.8 : 198.51.100.2 }
    oifname "internet" ip daddr 203.0.113.53 masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "subnets" oifname "subnets" accept
    oifname "internet" ip daddr 203.0.113.53 accept
    oifname "internet" ip saddr { 10.0.0.4, 10.0.0.8 } accept
    iifname "internet" ct status dnat accept
  }
}
"""
    )
    assert is_accepted_by_nft(text)
    assert is_accepted_by_nft(network.render_vpc([]))
    assert is_accepted_by_nft(network.EGRESS)


def test_machine_behind_a_nat_gateway_leaves_with_its_address_and_is_not_reached() -> None:
    text = network.render_vpc(
        [instance(4, "198.51.100.1"), instance(5, None, "198.51.100.9"), instance(6, None)]
    )
    assert '    oifname "internet" snat to ip saddr map { 10.0.0.5 : 198.51.100.9 }\n' in text
    assert '    oifname "internet" ip saddr { 10.0.0.5 } accept\n' in text
    assert "dnat to ip daddr map { 198.51.100.1 : 10.0.0.4 }" in text
    assert "10.0.0.6" not in text
    assert is_accepted_by_nft(text)
