"""Renders haproxy.cfg from the cluster's settings and addresses."""

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cluster.templates import TEMPLATES

# systemd's default hard limit of open files for a service.
FILE_LIMIT = 524288

# File descriptors that belong to no client connection: one for the health check of each node (at most 1100), listeners,
# threads, idle server connections, logs, sockets. HAProxy does not start if it could need more than `ulimit-n`.
RESERVED_FILES = 2048

# Memory of one proxied connection: two buffers of 16 KiB, the TLS session and HAProxy's own structures.
KIB_PER_CONNECTION = 64


@dataclass(frozen=True)
class Server:
    """A media node as a HAProxy server. Raises ValueError for a name or an address that haproxy.cfg cannot hold."""

    name: str
    """HAProxy's server name, also the value of its persistence cookie: `origin1`."""
    address: str
    """Private IPv4 address."""

    def __post_init__(self) -> None:
        _validate_word(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", self.name, "server name")
        IPv4Address(self.address)


@dataclass(frozen=True)
class HAProxyConfig:
    """The variables of haproxy.cfg.j2. Raises ValueError for a value that haproxy.cfg cannot hold."""

    domain: str
    """The host name that clients use."""
    origins: tuple[Server, ...]
    """Nodes that receive published streams; at least one."""
    edges: tuple[Server, ...]
    """Nodes that play streams; if empty, the origins also play."""
    applications: tuple[str, ...]
    """The only AMS applications that the media ports serve; at least one."""
    admin_cidrs: tuple[str, ...]
    """The IPv4 networks to which the panel's port serves more than redirects; at least one."""
    rtmps_port: int
    """The port of RTMP over TLS; 0 for none."""
    memory_mib: int
    """Memory of the load balancer, in MiB."""
    hsts_max_age: int
    """`max-age` of the HSTS header in seconds; 0 ends HSTS in browsers that have seen a longer one."""
    database: Server | None = None
    """The machine of the cluster registry, if the cluster has one."""
    monitoring: bool = False
    """Whether port 6080 serves the metrics of all machines and of Ant Media Server."""
    connections_per_client: int | None = None
    """Connections that one client address may have open. If None, half of all connections."""

    def __post_init__(self) -> None:
        _validate_word(r"[a-z0-9-]+(\.[a-z0-9-]+)+", self.domain, "domain")
        for application in self.applications:
            _validate_word(r"[A-Za-z0-9_-]+", application, "application")
        for cidr in self.admin_cidrs:
            IPv4Network(cidr)
        if not (self.origins and self.applications and self.admin_cidrs):
            raise ValueError(
                "HAProxy needs at least one origin, one application and one network of administrators"
            )
        names = [server.name for server in (*self.origins, *self.edges)]
        if len(set(names)) < len(names):
            raise ValueError(f"server names repeat: {', '.join(names)}")

    @property
    def machines(self) -> tuple[Server, ...]:
        """All machines but the load balancer."""
        return (*self.origins, *self.edges, *([self.database] if self.database else []))


@dataclass(frozen=True)
class ConnectionLimits:
    """HAProxy's limits of connections and open files. HAProxy does not start if `maxconn` needs more than `ulimit_n`."""

    maxconn: int
    ulimit_n: int

    @property
    def per_client(self) -> int:
        """Default limit of the connections of one client address. The other half stays for other clients."""
        return self.maxconn // 2


def calculate_connection_limits(memory_mib: int) -> ConnectionLimits:
    """Returns the limits for a load balancer with `memory_mib` MiB of memory: 8 connections per MiB.

    Half of the memory is for connections, 64 KiB each. The other half is for socket buffers of the kernel, the
    operating system, and the old worker that finishes its connections after a reload. A connection needs two file
    descriptors, one to the client and one to the server.
    """
    affordable = memory_mib * 1024 // 2 // KIB_PER_CONNECTION
    maxconn = min(affordable, (FILE_LIMIT - RESERVED_FILES) // 2)
    return ConnectionLimits(maxconn, ulimit_n=2 * maxconn + RESERVED_FILES)


def render_haproxy_cfg(config: HAProxyConfig) -> str:
    """Returns the text of haproxy.cfg. It holds no secret: the `userlist` with the password is a separate file."""
    limits = calculate_connection_limits(config.memory_mib)
    targets = _list_targets(config) if config.monitoring else ""
    return TEMPLATES.get_template("haproxy.cfg.j2").render(config=config, limits=limits, targets=targets)


def _list_targets(config: HAProxyConfig) -> str:
    """Returns the machines as a target list of Prometheus, in JSON. It must fit one of HAProxy's buffers (16 KiB)."""
    roles = {
        "load-balancer": ("load-balancer",),
        "origin": [server.name for server in config.origins],
        "edge": [server.name for server in config.edges],
        "database": [config.database.name] if config.database else [],
    }
    groups = [
        {"targets": names, "labels": {"cluster": config.domain, "role": role}}
        for role, names in roles.items()
        if names
    ]
    return json.dumps(groups, separators=(",", ":"))


def _validate_word(pattern: str, value: str, meaning: str) -> None:
    """Raises ValueError unless `value` matches: no space, quote or line break may add a directive to haproxy.cfg."""
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{value!r} is not a valid {meaning} in haproxy.cfg")
