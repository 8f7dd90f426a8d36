"""The cluster's port table: every way in, and the one reason for each."""

from dataclasses import dataclass
from enum import StrEnum


class SecurityGroup(StrEnum):
    LOAD_BALANCER = "load-balancer"
    NODES = "nodes"  # origins and edges
    ORIGINS = "origins"
    DATABASE = "database"


class Source(StrEnum):
    """Who may connect: ranges of addresses, or the members of a security group (of the same name)."""

    WORLD = "world"
    PUBLISHERS = "publishers"
    ADMINS = "admins"
    LOAD_BALANCER = "load-balancer"
    NODES = "nodes"


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class Rule:
    """One way in. `name` is unique in its security group."""

    name: str
    security_group: SecurityGroup
    protocol: Protocol
    from_port: int
    to_port: int
    source: Source
    description: str


@dataclass(frozen=True)
class EgressRule:
    """All protocols and ports to everywhere; `description` says why."""

    security_group: SecurityGroup
    description: str


def rules(srt: bool, database: bool) -> tuple[Rule, ...]:
    """Every ingress rule of a cluster with or without SRT and a database machine of its own."""
    load_balancer, nodes, origins = SecurityGroup.LOAD_BALANCER, SecurityGroup.NODES, SecurityGroup.ORIGINS

    def tcp(name: str, group: SecurityGroup, port: int, source: Source, description: str) -> Rule:
        return Rule(name, group, Protocol.TCP, port, port, source, description)

    table = [
        tcp("http", load_balancer, 80, Source.WORLD, "ACME challenge, redirect to HTTPS"),
        tcp("publish", load_balancer, 443, Source.WORLD, "Publish and application REST, to the origins"),
        tcp("play-http", load_balancer, 5080, Source.WORLD, "Redirect to HTTPS on 5443"),
        tcp("play", load_balancer, 5443, Source.WORLD, "Play, from the edges"),
        tcp("rtmp", load_balancer, 1935, Source.PUBLISHERS, "RTMP, to the origins"),
        tcp("panel", load_balancer, 4444, Source.ADMINS, "Ant Media web panel"),
        tcp("statistics", load_balancer, 6080, Source.ADMINS, "HAProxy statistics and metrics"),
        tcp("ssh", load_balancer, 22, Source.ADMINS, "SSH, and the jump to every other machine"),
        tcp("ssh", nodes, 22, Source.LOAD_BALANCER, "SSH through the load balancer"),
        tcp("http", nodes, 5080, Source.LOAD_BALANCER, "HTTP from HAProxy"),
        tcp("rest-proxy", nodes, 5080, Source.NODES, "REST requests passed on to the node of a stream"),
        tcp("cluster", nodes, 5000, Source.NODES, "Streams from origins to edges"),
        Rule("webrtc", nodes, Protocol.UDP, 50000, 60000, Source.WORLD, "WebRTC media, past HAProxy"),
        tcp("rtmp", origins, 1935, Source.LOAD_BALANCER, "RTMP from HAProxy"),
    ]
    if srt:
        table += [Rule("srt", origins, Protocol.UDP, 4200, 4200, Source.PUBLISHERS, "SRT, past HAProxy")]
    if database:
        table += [
            tcp("ssh", SecurityGroup.DATABASE, 22, Source.LOAD_BALANCER, "SSH through the load balancer"),
            tcp("registry", SecurityGroup.DATABASE, 6379, Source.NODES, "Cluster registry (Valkey)"),
        ]
    return tuple(table)


def egress_rules(database: bool) -> tuple[EgressRule, ...]:
    """Every egress rule. The origins need none of their own: they are nodes."""
    table = [
        EgressRule(SecurityGroup.LOAD_BALANCER, "Nodes, package mirrors, ACME directory, DNS and time"),
        EgressRule(SecurityGroup.NODES, "WebRTC peers, other nodes, database, package mirrors, DNS and time"),
    ]
    if database:
        table += [EgressRule(SecurityGroup.DATABASE, "Package mirrors, DNS and time")]
    return tuple(table)
