"""Which ports of a machine answer, asked of all 65535, and which should by the port table."""

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cluster.port_table import Protocol, SecurityGroup, Source, rules
from sandbox.cloud import addresses
from tests.e2e.running_cluster import Cluster, Machine, running

EVERYBODY = {Source.WORLD, Source.PUBLISHERS}
UDP_PROBE = Path(__file__).with_name("udp_probe.py")


@dataclass(frozen=True)
class Viewpoint:
    """Somewhere to look from: an address on the internet, or a machine."""

    name: str
    who: frozenset[Source]
    """As whom the port table knows it."""
    address: str = ""
    machine: Machine | None = None

    def command(self, cluster: Cluster, *command: str | Path) -> list[str]:
        """A command line that runs another there."""
        if self.machine:
            return cluster.at_network_of(self.machine, *command)
        return cluster.as_operator(*command)

    def address_of(self, target: Machine) -> str:
        """What a machine is called from there."""
        return target.private if self.machine else target.public


def groups_of(name: str) -> set[SecurityGroup]:
    if name.startswith("origin"):
        return {SecurityGroup.NODES, SecurityGroup.ORIGINS}
    return {SecurityGroup.NODES if name.startswith("edge") else SecurityGroup(name)}


def viewpoints(machines: dict[str, Machine]) -> dict[str, Viewpoint]:
    outside = {
        "admin": Viewpoint("admin", frozenset({*EVERYBODY, Source.ADMINS}), addresses.OPERATOR),
        "stranger": Viewpoint("stranger", frozenset(EVERYBODY), addresses.STRANGER),
    }
    inside = {
        name: Viewpoint(
            name,
            frozenset({*EVERYBODY, *(Source(group) for group in groups_of(name) if group in set(Source))}),
            machine=machine,
        )
        for name, machine in machines.items()
    }
    return {**outside, **inside}


def permitted(target: Machine, who: Iterable[Source], protocol: Protocol) -> set[int]:
    """The ports of a machine that the table opens to somebody."""
    return {
        port
        for rule in rules(srt=False, database=True)
        if rule.protocol == protocol
        and rule.source in set(who)
        and rule.security_group in groups_of(target.name)
        for port in range(rule.from_port, rule.to_port + 1)
    }


def tcp_ports(
    cluster: Cluster, viewpoint: Viewpoint, targets: Sequence[Machine]
) -> dict[str, dict[int, str]]:
    """Every TCP port that is not silent: `open`, or `closed` where nobody listens behind an open group."""
    names = {viewpoint.address_of(target): target.name for target in targets}
    options = ["-sS", "-Pn", "-n", "-T5", "--min-hostgroup", "16"]
    if viewpoint.address:
        route = cluster.must(*cluster.as_operator("ip", "route", "get", next(iter(names))))
        options += ["-S", viewpoint.address, "-e", re.findall(r" dev (\S+)", route)[0]]
    forget_probes(cluster, viewpoint)
    found: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    # Each port once, fast; then with patience those that ought to answer, for a packet may be lost.
    expected = {port for target in targets for port in permitted(target, viewpoint.who, Protocol.TCP)}
    sweeps = [["-p", "1-65535", "--min-rate", "100000", "--max-retries", "0"]]
    sweeps += [["-p", ",".join(map(str, sorted(expected))), "--max-retries", "2"]] if expected else []
    for sweep in sweeps:
        command = viewpoint.command(cluster, "nmap", *options, *sweep, "-oX", "-", *names)
        for host in ElementTree.fromstring(cluster.must(*command, timeout=120)).iter("host"):
            assert {rest.attrib["state"] for rest in host.iter("extraports")} <= {"filtered"}
            found[names[next(host.iter("address")).attrib["addr"]]] |= {
                int(port.attrib["portid"]): state.attrib["state"]
                for port in host.iter("port")
                for state in port.iter("state")
                if state.attrib["state"] != "filtered"
            }
    return found


def forget_probes(cluster: Cluster, viewpoint: Viewpoint) -> None:
    """A probe that nobody answers is kept in mind for two minutes, as a connection that its target may still take up.

    By then the tables are full, and a scan in the other direction is taken for the answer. Here a second will do.
    """
    command = ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_syn_sent=1"]
    if viewpoint.machine:
        cluster.must(*viewpoint.command(cluster, *command))
    else:
        each = 'for vpc in /run/netns/vpc-*; do ip netns exec "${vpc##*/}" "$@"; done'
        cluster.must(
            *cluster.as_operator("nsenter", "--target=1", "--mount", "bash", "-c", each, "each", *command)
        )
    time.sleep(1.1)


def udp_ports(cluster: Cluster, viewpoint: Viewpoint, target: Machine) -> set[int]:
    """Every UDP port of a machine whose datagrams reach it, whether anybody listens or not."""
    with running(cluster.at_network_of(target, sys.executable, UDP_PROBE, "receive")) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdin is not None
        assert receiver.stdout.readline() == "ready\n"
        address = viewpoint.address_of(target)
        cluster.must(
            *viewpoint.command(cluster, sys.executable, UDP_PROBE, "send", address, viewpoint.address)
        )
        receiver.stdin.close()
        ports: list[int] = json.loads(receiver.stdout.read())
        return set(ports)
