"""The cluster's port table: every ingress and egress rule of its security groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # policy/ imports this module in an environment without pydantic.
    from cluster.settings.model import Settings


class SecurityGroup(StrEnum):
    LOAD_BALANCER = "load-balancer"
    RTMP = "rtmp"  # also on the load balancer: AWS allows 60 rules in a security group
    NODES = "nodes"  # origins and edges
    ORIGINS = "origins"
    DATABASE = "database"


class Source(StrEnum):
    """Who may connect: address ranges, or the members of the security group of the same name."""

    WORLD = "world"
    PUBLISHERS = "publishers"
    ADMINS = "admins"
    MONITORS = "monitors"  # the administrators too
    LOAD_BALANCER = "load-balancer"
    NODES = "nodes"
    DATABASE = "database"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class IngressRule:
    """Ports of a security group that a source may connect to. `name` is unique within its security group."""

    name: str
    security_group: SecurityGroup
    protocol: Protocol
    from_port: int
    to_port: int
    source: Source
    description: str
    late: bool = False
    """Whether it opens the ports only when haproxy.cfg is applied, which restricts what the source gets or moves the port."""


@dataclass(frozen=True)
class EgressRule:
    """Permission to connect to every address and port. `description` lists what it is needed for."""

    security_group: SecurityGroup
    description: str


@dataclass(frozen=True)
class PortTable:
    """The rules of a cluster, and the address ranges of their sources."""

    ingress: tuple[IngressRule, ...]
    egress: tuple[EgressRule, ...]
    cidrs: Mapping[Source, tuple[str, ...]]
    """The sources that are address ranges. All others are security groups."""


def plan_ports(settings: "Settings") -> PortTable:
    """Returns the port table of the cluster that the settings describe."""
    return PortTable(
        ingress_rules(
            settings.rtmps_port, settings.srt, settings.needs_database, bool(settings.monitoring_cidrs)
        ),
        egress_rules(settings.needs_database),
        {
            Source.WORLD: ("0.0.0.0/0",),
            Source.ADMINS: settings.admin_cidrs,
            Source.PUBLISHERS: settings.publisher_cidrs,
            # AWS refuses a second rule for the same port and network, also while an update moves a network from one list to the other.
            Source.MONITORS: tuple(dict.fromkeys([*settings.admin_cidrs, *settings.monitoring_cidrs])),
        },
    )


def ingress_rules(rtmps_port: int, srt: bool, database: bool, monitoring: bool) -> tuple[IngressRule, ...]:
    """Returns all ingress rules of a cluster.

    `rtmps_port` is 0 without RTMPS. `srt`, `database` and `monitoring` tell whether the cluster has SRT, a database machine,
    and metrics of its machines.
    """
    load_balancer, rtmp = SecurityGroup.LOAD_BALANCER, SecurityGroup.RTMP
    nodes, origins = SecurityGroup.NODES, SecurityGroup.ORIGINS

    def tcp(
        name: str, group: SecurityGroup, port: int, source: Source, description: str, *, late: bool = False
    ) -> IngressRule:
        return IngressRule(name, group, Protocol.TCP, port, port, source, description, late)

    def udp(
        name: str, group: SecurityGroup, ports: tuple[int, int], source: Source, description: str
    ) -> IngressRule:
        return IngressRule(name, group, Protocol.UDP, *ports, source, description)

    table = [
        tcp("http", load_balancer, 80, Source.WORLD, "ACME challenge, redirect to HTTPS"),
        tcp("publish", load_balancer, 443, Source.WORLD, "Publish and application REST, to the origins"),
        tcp("play-http", load_balancer, 5080, Source.WORLD, "Redirect to HTTPS on 5443"),
        tcp("play", load_balancer, 5443, Source.WORLD, "Play, from the edges"),
        tcp("rtmp", rtmp, 1935, Source.PUBLISHERS, "RTMP, to the origins"),
        tcp("panel", load_balancer, 4444, Source.ADMINS, "Ant Media web panel"),
        tcp(
            "panel-links",
            load_balancer,
            4444,
            Source.WORLD,
            "Links that the panel makes, redirected to 5443",
            late=True,
        ),
        tcp("statistics", load_balancer, 6080, Source.MONITORS, "HAProxy statistics and metrics"),
        tcp("ssh", load_balancer, 22, Source.ADMINS, "SSH, and the jump to every other machine"),
        tcp("ssh", nodes, 22, Source.LOAD_BALANCER, "SSH through the load balancer"),
        tcp("http", nodes, 5080, Source.LOAD_BALANCER, "HTTP from HAProxy"),
        tcp("rest-proxy", nodes, 5080, Source.NODES, "REST requests passed on to the node of a stream"),
        tcp("cluster", nodes, 5000, Source.NODES, "Streams from origins to edges"),
        udp("webrtc", nodes, (50000, 60000), Source.WORLD, "WebRTC media, past HAProxy"),
        tcp("rtmp", origins, 1935, Source.LOAD_BALANCER, "RTMP from HAProxy"),
    ]
    if rtmps_port:
        table += [
            tcp("rtmps", rtmp, rtmps_port, Source.PUBLISHERS, "RTMP over TLS, to the origins", late=True)
        ]
    if srt:
        table += [udp("srt", origins, (4200, 4200), Source.PUBLISHERS, "SRT, past HAProxy")]
    if database:
        table += [
            tcp("ssh", SecurityGroup.DATABASE, 22, Source.LOAD_BALANCER, "SSH through the load balancer"),
            tcp("registry", SecurityGroup.DATABASE, 6379, Source.NODES, "Cluster registry (Valkey)"),
            tcp("replica", SecurityGroup.DATABASE, 6379, Source.LOAD_BALANCER, "Replication to the standby"),
            tcp("registry", load_balancer, 6379, Source.NODES, "Standby of the cluster registry (Valkey)"),
            tcp("replica", load_balancer, 6379, Source.DATABASE, "Replication back to the database"),
        ]
    node_exporter = "Metrics of the machine (node exporter)"
    if monitoring:
        table += [
            tcp("server-metrics", nodes, 9090, Source.LOAD_BALANCER, "Metrics of Ant Media Server"),
            tcp("metrics", nodes, 9100, Source.LOAD_BALANCER, node_exporter),
        ]
    if monitoring and database:
        table += [
            tcp("metrics", SecurityGroup.DATABASE, 9100, Source.LOAD_BALANCER, node_exporter),
        ]
    return tuple(table)


def egress_rules(database: bool) -> tuple[EgressRule, ...]:
    """Returns all egress rules. Origins use the rule of the nodes' security group."""
    table = [
        EgressRule(
            SecurityGroup.LOAD_BALANCER, "Nodes, database, package mirrors, ACME directory, DNS and time"
        ),
        EgressRule(SecurityGroup.NODES, "WebRTC peers, other nodes, database, package mirrors, DNS and time"),
    ]
    if database:
        table += [EgressRule(SecurityGroup.DATABASE, "Load balancer, package mirrors, DNS and time")]
    return tuple(table)
