"""haproxy.cfg as a pure function of the cluster's shape: no Pulumi, no I/O but reading the template."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from cluster.templates import TEMPLATES

# The hard limit of open files that systemd gives a service where nothing else is set.
FILE_LIMIT = 524288

# Files of no client's connection: listeners, health checks, idle server connections, logs, sockets.
SPARE_FILES = 1024

# What HAProxy takes for one proxied connection: two buffers of 16 KiB, the TLS session and the bookkeeping.
KIB_PER_CONNECTION = 64


@dataclass(frozen=True)
class Server:
    """A media node as HAProxy sees it."""

    name: str
    """HAProxy's server name, and the value of its sticky cookie: `origin1`."""
    address: str
    """Private IPv4 address."""

    def __post_init__(self) -> None:
        _require(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", self.name, "server name")
        IPv4Address(self.address)


@dataclass(frozen=True)
class HAProxyConfig:
    """All that haproxy.cfg depends on."""

    domain: str
    """The host name that clients use."""
    origins: tuple[Server, ...]
    """Nodes that take publishers in; at least one."""
    edges: tuple[Server, ...]
    """Nodes that play; where there are none, the origins serve their ports."""
    applications: tuple[str, ...]
    """AMS applications served on the media ports: nothing else is."""
    memory_mib: int
    """Memory of the machine that HAProxy has to itself."""
    hsts_max_age: int
    """For how many seconds browsers are to insist on TLS; 0 to forget that they were."""

    def __post_init__(self) -> None:
        _require(r"[a-z0-9-]+(\.[a-z0-9-]+)+", self.domain, "domain")
        for application in self.applications:
            _require(r"[A-Za-z0-9_-]+", application, "application")
        if not self.origins or not self.applications:
            raise ValueError("HAProxy needs at least one origin and one application")
        names = [server.name for server in (*self.origins, *self.edges)]
        if len(set(names)) < len(names):
            raise ValueError(f"server names repeat: {', '.join(names)}")


@dataclass(frozen=True)
class ConnectionLimits:
    """HAProxy's two limits: it does not start when the first needs more files than the second grants."""

    maxconn: int
    ulimit_n: int


def connection_limits(memory_mib: int) -> ConnectionLimits:
    """Half of the machine's memory at 64 KiB a connection: 8 connections a MiB.

    The other half is the kernel's socket buffers, the system, and the worker that a reload leaves behind.
    A connection is two files, the client's and the server's.
    """
    affordable = memory_mib * 1024 // 2 // KIB_PER_CONNECTION
    maxconn = min(affordable, (FILE_LIMIT - SPARE_FILES) // 2)
    return ConnectionLimits(maxconn, ulimit_n=2 * maxconn + SPARE_FILES)


def render(config: HAProxyConfig) -> str:
    """The text of haproxy.cfg. Nothing secret is in it; the `userlist` is a file of its own."""
    limits = connection_limits(config.memory_mib)
    return TEMPLATES.get_template("haproxy.cfg.j2").render(config=config, limits=limits)


def _require(pattern: str, value: str, what: str) -> None:
    """What reaches the template is one plain word: no space, quote or line break becomes a directive."""
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{value!r} is not usable as a {what} in haproxy.cfg")
