"""Scans a machine's ports. Lists those that the port table opens."""

import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cluster.port_table import Protocol, SecurityGroup, Source, ingress_rules
from sandbox.cloud import addresses
from tests.e2e.running_cluster import Cluster, Machine, recording

PUBLIC_SOURCES = {Source.WORLD, Source.PUBLISHERS}
UDP_PROBE = Path(__file__).with_name("udp_probe.py")


@dataclass(frozen=True)
class Viewpoint:
    """Source of a scan: an address on the internet, or a machine."""

    name: str
    sources: frozenset[Source]
    """The port table's sources that it belongs to."""
    address: str = ""
    machine: Machine | None = None

    def command(self, cluster: Cluster, *command: str | Path) -> list[str]:
        """Wraps a command line to run there."""
        if self.machine:
            return cluster.network_namespace_command(self.machine, *command)
        return cluster.operator_command(*command)

    def get_address(self, target: Machine) -> str:
        """Returns the address at which the viewpoint reaches a machine."""
        return target.private_address if self.machine else target.public_address


def list_security_groups(name: str) -> set[SecurityGroup]:
    if name.startswith("origin"):
        return {SecurityGroup.NODES, SecurityGroup.ORIGINS}
    if name == "load-balancer":
        return {SecurityGroup.LOAD_BALANCER, SecurityGroup.RTMP}
    return {SecurityGroup.NODES if name.startswith("edge") else SecurityGroup(name)}


def list_viewpoints(machines: dict[str, Machine]) -> dict[str, Viewpoint]:
    outside = {
        "admin": Viewpoint(
            "admin", frozenset({*PUBLIC_SOURCES, Source.ADMINS, Source.MONITORS}), addresses.OPERATOR
        ),
        "monitor": Viewpoint("monitor", frozenset({*PUBLIC_SOURCES, Source.MONITORS}), addresses.MONITOR),
        "stranger": Viewpoint("stranger", frozenset(PUBLIC_SOURCES), addresses.STRANGER),
    }
    inside = {
        name: Viewpoint(
            name,
            frozenset(
                {
                    *PUBLIC_SOURCES,
                    *(Source(group) for group in list_security_groups(name) if group in set(Source)),
                }
            ),
            machine=machine,
        )
        for name, machine in machines.items()
    }
    return {**outside, **inside}


def list_permitted_ports(target: Machine, sources: Iterable[Source], protocol: Protocol) -> set[int]:
    """Returns the ports of a machine that the port table opens to any of the sources."""
    return {
        port
        for rule in ingress_rules(rtmps_port=1936, srt=False, database=True, monitoring=True)
        if rule.protocol == protocol
        and rule.source in set(sources)
        and rule.security_group in list_security_groups(target.name)
        for port in range(rule.from_port, rule.to_port + 1)
    }


def scan_tcp_ports(
    cluster: Cluster, viewpoint: Viewpoint, targets: Sequence[Machine]
) -> dict[str, dict[int, str]]:
    """Returns the state of each TCP port that responds: `open`, or `closed` if it is permitted but nothing listens.

    From the internet it scans all ports. From a machine it scans those that are open to anybody, and those where a process listens.
    """
    names = {viewpoint.get_address(target): target.name for target in targets}
    options = ["-sS", "-Pn", "-n", "-T5", "--min-hostgroup", "16"]
    if viewpoint.address:
        route = cluster.check_output(*cluster.operator_command("ip", "route", "get", next(iter(names))))
        options += ["-S", viewpoint.address, "-e", re.findall(r" dev (\S+)", route)[0]]
    expire_probe_connections(cluster, viewpoint)
    found: dict[str, dict[int, str]] = {name: {} for name in names.values()}
    expected = {
        port for target in targets for port in list_permitted_ports(target, viewpoint.sources, Protocol.TCP)
    }
    if viewpoint.machine:
        expected |= {
            port for target in targets for port in list_permitted_ports(target, Source, Protocol.TCP)
        }
        expected |= {port for target in targets for port in list_listening_ports(cluster, target)}
        sweeps: list[list[str]] = []
    else:
        # One fast sweep of all ports, then a slow one of the permitted ports, as packets may get lost.
        sweeps = [["-p", "1-65535", "--min-rate", "100000", "--max-retries", "0"]]
    slow = [["-p", ",".join(map(str, sorted(expected))), "--max-retries", "2"]] if expected else []

    def is_complete() -> bool:
        return all(
            list_permitted_ports(target, viewpoint.sources, Protocol.TCP) <= found[target.name].keys()
            for target in targets
        )

    # On a busy machine, the response of a port may come too late: then the slow sweep is repeated.
    for number, sweep in enumerate([*sweeps, *slow * 4]):
        if number > len(sweeps) and is_complete():
            break
        command = viewpoint.command(cluster, "nmap", *options, *sweep, "-oX", "-", *names)
        for host in ElementTree.fromstring(cluster.check_output(*command)).iter("host"):
            assert {rest.attrib["state"] for rest in host.iter("extraports")} <= {"filtered"}
            found[names[next(host.iter("address")).attrib["addr"]]] |= {
                int(port.attrib["portid"]): state.attrib["state"]
                for port in host.iter("port")
                for state in port.iter("state")
                if state.attrib["state"] != "filtered"
            }
    return found


def list_listening_ports(cluster: Cluster, target: Machine) -> set[int]:
    sockets = cluster.check_output(*cluster.network_namespace_command(target, "ss", "-Hltn"))
    return {int(line.split()[3].rpartition(":")[2]) for line in sockets.splitlines()}


def expire_probe_connections(cluster: Cluster, viewpoint: Viewpoint) -> None:
    """Shortens the conntrack timeout of unanswered probes to one second and waits for it.

    With the default of two minutes the table fills up, and a scan in the other direction passes as the response to a probe.
    """
    command = ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_syn_sent=1"]
    if viewpoint.machine:
        cluster.check_output(*viewpoint.command(cluster, *command))
    else:
        in_each_vpc = 'for vpc in /run/netns/vpc-*; do ip netns exec "${vpc##*/}" "$@"; done'
        cluster.check_output(
            *cluster.operator_command(
                "nsenter", "--target=1", "--mount", "bash", "-c", in_each_vpc, "each", *command
            )
        )
    time.sleep(1.1)


def scan_udp_ports(cluster: Cluster, viewpoint: Viewpoint, target: Machine) -> set[int]:
    """Returns the UDP ports whose datagrams reach a machine. No process has to listen there.

    A busy machine may lose datagrams, so the permitted ports get more than one.
    """
    receiver = cluster.network_namespace_command(target, sys.executable, UDP_PROBE, "receive")
    permitted = list_permitted_ports(target, viewpoint.sources, Protocol.UDP)
    again = [f"{min(permitted)}-{max(permitted)}"] if permitted else []
    found: set[int] = set()
    for ranges in (["1-65535", *again], again, again, again):
        with recording(receiver) as stop_recording:
            send = ("send", viewpoint.get_address(target), viewpoint.address, *ranges)
            cluster.check_output(*viewpoint.command(cluster, sys.executable, UDP_PROBE, *send))
            found |= set(stop_recording())
        if permitted <= found:
            break
    return found
