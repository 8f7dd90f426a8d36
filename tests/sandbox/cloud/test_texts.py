"""The local cloud's pure parts: the rulesets, seeds and apt settings that it writes, as whole texts."""

import subprocess
import threading
from ipaddress import IPv4Network

import pytest
from dnslib import RCODE, DNSRecord

from operations import stack_file
from sandbox.bin import stack_settings
from sandbox.cloud import apt, dns, machines, network, security_groups
from sandbox.cloud.apt import Source, Upstream
from sandbox.cloud.ec2 import Instance
from sandbox.cloud.security_groups import Group, Rule


def instance(number: int, public: str | None) -> Instance:
    return Instance(
        id=f"i-{number:017x}",
        name=f"machine{number}",
        running=True,
        image="ami-1",
        type="t3.micro",
        zone="eu-west-1a",
        vpc="vpc-1",
        private_address=f"10.0.0.{number}",
        network=IPv4Network("10.0.0.0/19"),
        public_address=public,
        groups=("sg-1",),
    )


def accepted_by_nft(text: str) -> bool:
    command = ["unshare", "--net", "nft", "--check", "--file", "-"]
    return subprocess.run(command, input=text, text=True, check=False, timeout=10).returncode == 0


def test_security_groups_as_nftables() -> None:
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
    assert accepted_by_nft(text)


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
def test_a_rules_protocol_and_ports(rule: Rule, expected: str) -> None:
    permitted = Rule(rule.protocol, rule.from_port, rule.to_port, networks=("10.0.0.0/8",))
    text = security_groups.render([Group("sg-1", "g", ingress=(permitted,))], {})
    assert f"    ip saddr {{ 10.0.0.0/8 }} {expected}accept\n" in text
    assert accepted_by_nft(text)


def test_a_group_named_like_nftables_syntax_stays_a_comment() -> None:
    text = security_groups.render([Group("sg-1", "x\n    accept")], {})
    assert "\n    accept" not in text


def test_a_vpcs_translation_as_nftables() -> None:
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
    assert accepted_by_nft(text)
    assert accepted_by_nft(network.render_vpc([]))
    assert accepted_by_nft(network.EGRESS)


def test_the_seed_carries_the_user_data_untouched_and_the_name_as_on_ec2() -> None:
    assert machines.render_seed(instance(8, None), b"\x1f\x8bzipped") == {
        "user-data": b"\x1f\x8bzipped",
        "meta-data": b"""\
{
  "instance-id": "i-00000000000000008",
  "local-hostname": "ip-10-0-0-8.eu-west-1.compute.internal"
}
""",
    }
    assert machines.render_seed(instance(8, None), b"")["user-data"] == b"#cloud-config\n{}\n"


ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example:8081/debian bookworm main contrib # why
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb https://elsewhere.example/node nodistro main
deb http://mirror.example:8081/debian bookworm-backports main
"""
DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://one.example/debian
 http://two.example/debian
Suites: trixie
 trixie-updates
Components: main non-free
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no
"""


def test_sources_of_either_format_become_debian_13s_at_the_same_place() -> None:
    assert apt.render_sources(apt.convert_to_trixie(list(apt.parse_one_line(ONE_LINE)))) == (
        f"deb [signed-by={apt.KEYRING}] http://mirror.example:8081/debian trixie main\n"
        f"deb [signed-by={apt.KEYRING}] https://mirror.example/security trixie-security main\n"
    )
    assert list(apt.parse_deb822(DEB822)) == [
        Source(uri, suite, ("main", "non-free"))
        for uri in ("http://one.example/debian", "http://two.example/debian")
        for suite in ("trixie", "trixie-updates")
    ]


def test_what_a_machines_apt_needs_of_the_hosts_configuration() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire::Check-Valid-Until "false";
Acquire::AllowInsecureRepositories "0";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/Packages";
Acquire::http "";
Acquire::http::Proxy "http://user:word@10.9.8.7:3128/";
Acquire::https::Proxy::direct.example "DIRECT";
Acquire::Changelogs::URI::Origin::Debian "https://metadata.example/changelogs";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
"""
    configuration = apt.select_configuration(dump)
    assert configuration == (
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::http::Proxy "http://user:word@10.9.8.7:3128/";\n'
        'Acquire::https::Proxy::direct.example "DIRECT";\n'
    )
    servers = apt.find_upstreams(
        [Source("https://mirror.example/debian", "trixie", ("main",))], configuration
    )
    assert servers == [Upstream("10.9.8.7", 3128), Upstream("mirror.example", 443)]
    # A machine has no way to an address of the host's network: it gets a name, which leads to the relay.
    assert "http://user:word@packages-10-9-8-7.test:3128/" in apt.rename_upstreams(configuration, servers)
    sources = "deb http://localhost:9999/debian trixie main\n"
    renamed = apt.rename_upstreams(sources, [Upstream("localhost", 9999)])
    assert renamed == "deb http://packages-localhost.test:9999/debian trixie main\n"


def test_dns_follows_aliases_and_knows_nothing_that_was_not_put_there() -> None:
    records: dns.Records = [
        ("live.ant-media.test.", "CNAME", 60, "lb.ant-media.test."),
        ("lb.ant-media.test.", "A", 60, "198.51.100.7"),
        ("ant-media.test.", "SOA", 900, "what moto says } does not parse"),
        ("broken.ant-media.test.", "A", 60, "not an address"),
        ("_acme-challenge.ant-media.test.", "TXT", 60, '"one"'),
        ("_acme-challenge.ant-media.test.", "TXT", 60, '"two words" "and more"'),
        (r"\052.ant-media.test.", "A", 60, "198.51.100.8"),
    ]
    changed = threading.Event()
    zones = dns.Zones({"acme.test": "203.0.113.14"}, lambda: records, changed)

    def ask(name: str, kind: str = "A") -> list[str] | None:
        reply = zones.resolve(DNSRecord.question(name, kind), None)
        return None if reply.header.rcode == RCODE.NXDOMAIN else [str(record.rdata) for record in reply.rr]

    assert ask("LIVE.ant-media.test") == ["lb.ant-media.test.", "198.51.100.7"]
    assert ask("live.ant-media.test", "AAAA") == ["lb.ant-media.test."]
    assert ask("acme.test") == ["203.0.113.14"]
    assert ask("ip-10-0-0-8.eu-west-1.compute.internal") == ["10.0.0.8"]
    assert ask("_acme-challenge.ant-media.test", "TXT") == ['"one"', '"two words","and more"']
    assert ask("Any.Thing.ant-media.test") == ["198.51.100.8"]
    assert ask("below.live.ant-media.test") is None
    assert ask("www.example.com") is None
    assert ask("late.ant-media.test") == ["198.51.100.8"]
    records.append(("late.ant-media.test.", "A", 60, "198.51.100.9"))
    changed.set()
    assert ask("late.ant-media.test") == ["198.51.100.9"]


def test_a_stack_keeps_its_secrets_and_gets_this_clouds_root() -> None:
    acme, password = "ant-media-cluster:acme", {"secure": "v1:…"}
    before = {
        "encryptionsalt": "v1:salt",
        "config": {"p": password, acme: {"root": "yesterday's"}, "gone": 1},
    }

    def config(**settings: object) -> object:
        kept = stack_file.with_secrets_of(before, {"config": settings})
        return stack_settings.with_root(kept, "today's")["config"]

    assert config(**{acme: {"email": "a@b.test"}}) == {
        "p": password,
        acme: {"root": "today's", "email": "a@b.test"},
    }
    assert config(**{acme: {"root": "my own"}}) == {"p": password, acme: {"root": "my own"}}
    assert config() == {"p": password}
