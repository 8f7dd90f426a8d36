"""The state of a running cluster, as its load balancer shows it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from operations.access import AccessProblem
from operations.instances import Instance
from operations.status.certificate import Certificate
from operations.status.registry import Registry


@dataclass(frozen=True)
class Machine:
    name: str
    role: str
    private_address: str
    public_address: str


@dataclass(frozen=True)
class Server:
    """A server of one of HAProxy's backends."""

    backend: str
    name: str
    state: str
    sessions: int
    check: str = ""
    """The result of its last health check. Empty for a server that tracks another one."""

    @property
    def is_down(self) -> bool:
        return self.state.startswith("DOWN")


@dataclass(frozen=True)
class Renewal:
    """The result of certbot's last run. `ended` is None if no run is recorded."""

    failed: bool
    ended: datetime | None


@dataclass(frozen=True)
class Unreachable:
    """Takes the place of data that could not be read."""

    reason: str


@dataclass(frozen=True)
class MediaServer:
    """Ant Media Server on a node. Loads and limits are percentages."""

    cpu_load: int
    """The average that it compares with its limit."""
    cpu_limit: int
    memory_load: int
    memory_limit: int
    applications: Sequence[str]


@dataclass(frozen=True)
class Cluster:
    """What was found out about a running cluster."""

    domain: str
    names: Sequence[str]
    """The names that its certificate must cover."""
    machines: Sequence[Machine]
    ports: Mapping[int, Certificate | Unreachable | None]
    """The certificate that each port presents. None stands for a port without TLS that accepts connections."""
    servers: Sequence[Server] | Unreachable
    renewal: Renewal | Unreachable | None
    """None if the certificate is the user's own."""
    instances: Sequence[Instance] | Unreachable
    """The stack's machines at AWS, also the database."""
    media_servers: Mapping[str, MediaServer | Unreachable] = field(
        default_factory=dict[str, MediaServer | Unreachable]
    )
    """By node."""
    applications: Sequence[str] = ()
    """The applications that HAProxy serves, in the order of the setting."""
    registry: Registry = field(default_factory=Registry)
    """How the nodes see the cluster registry."""
    access_problem: AccessProblem | None = None
    """Why administration ports do not admit this machine, or None if they do or could not be checked."""

    @property
    def stopped(self) -> Sequence[Instance]:
        return [] if isinstance(self.instances, Unreachable) else [i for i in self.instances if i.is_stopped]

    @property
    def unserved_applications(self) -> Sequence[str]:
        """The applications of the nodes that HAProxy does not serve."""
        servers = [server for server in self.media_servers.values() if isinstance(server, MediaServer)]
        return sorted({name for server in servers for name in server.applications} - {*self.applications})

    @property
    def ports_by_certificate(self) -> Mapping[Certificate, str]:
        """The presented certificates, each with a list of its ports."""
        ports: dict[Certificate, list[str]] = {}
        for port, result in self.ports.items():
            if isinstance(result, Certificate):
                ports.setdefault(result, []).append(str(port))
        return {certificate: ", ".join(own) for certificate, own in ports.items()}


def read_servers(statistics: str) -> list[Server]:
    """Reads HAProxy's statistics in CSV. Leaves out servers without a health check of their own or a tracked one."""
    rows = csv.DictReader(io.StringIO(statistics.removeprefix("# ")))
    return [
        Server(row["pxname"], row["svname"], row["status"], int(row["scur"]), _describe_check(row))
        for row in rows
        if row["type"] == "2" and row["status"] != "no check"
    ]


def _describe_check(row: Mapping[str, str]) -> str:
    """Returns "Layer7 wrong status: 403 Forbidden", for example."""
    details = " ".join(filter(None, (row["check_code"], row["last_chk"])))
    return ": ".join(filter(None, (row["check_desc"], details)))


def read_renewal(metrics: str) -> Renewal:
    """Reads certbot's timer and service from node-exporter's metrics.

    Raises `ValueError` if the text is not in Prometheus format.
    """
    failed, ended = False, None
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            match sample.name, sample.labels:
                case "node_systemd_timer_last_trigger_seconds", {"name": "certbot.timer"}:
                    ended = datetime.fromtimestamp(sample.value, UTC) if sample.value else None
                case "node_systemd_unit_state", {"name": "certbot.service", "state": "failed"}:
                    failed = sample.value == 1
                case _:
                    pass
    return Renewal(failed, ended)
