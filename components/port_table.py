"""The cluster's port table: every way in, and the one reason for each."""

from dataclasses import dataclass
from enum import StrEnum


class SecurityGroup(StrEnum):
    LOAD_BALANCER = "load-balancer"
    NODES = "nodes"  # origins and edges
    ORIGINS = "origins"
    DATABASE = "database"


class Source(StrEnum):
    """Who may connect: an address range, or the members of one of the security groups."""

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
    """All protocols and ports to everywhere: `description` says why."""

    security_group: SecurityGroup
    description: str


def rules(srt: bool, database: bool) -> tuple[Rule, ...]:
    raise NotImplementedError


def egress_rules(database: bool) -> tuple[EgressRule, ...]:
    raise NotImplementedError
