"""What is to be said of a cluster that was looked at: plain data in; the report, and what is wrong, out."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
PLACEHOLDER = "placeholder"
"""The common name of the certificate that install-haproxy.sh makes."""


@dataclass(frozen=True)
class Machine:
    name: str
    role: str
    private_address: str
    public_address: str


@dataclass(frozen=True)
class Server:
    """A server as one of HAProxy's backends sees it."""

    backend: str
    name: str
    state: str
    sessions: int


@dataclass(frozen=True)
class Certificate:
    names: tuple[str, ...]
    issuer: str
    serial: str
    key: str
    not_before: datetime
    not_after: datetime
    untrusted: str | None = None
    """Why this machine does not trust it; None when it does."""

    @property
    def urgent(self) -> timedelta:
        """With how much time left a renewal is long overdue: 7 days, or a sixth of a short life."""
        return min(timedelta(days=7), (self.not_after - self.not_before) / 6)

    def covers(self, name: str) -> bool:
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


@dataclass(frozen=True)
class Renewal:
    """How certbot's last run went; `ended` is None where none has been recorded."""

    failed: bool
    ended: datetime | None


@dataclass(frozen=True)
class Unseen:
    """Stands for what could not be looked at."""

    why: str


@dataclass(frozen=True)
class Cluster:
    domain: str
    names: Sequence[str]
    """What its certificate is to be for."""
    machines: Sequence[Machine]
    ports: Mapping[int, Certificate | Unseen | None]
    """What each port presents; None is a plain port that answers."""
    servers: Sequence[Server] | Unseen
    renewal: Renewal | Unseen | None
    """None where the certificate is the user's own."""


# Reading


def read_servers(statistics: str) -> list[Server]:
    """The servers that are checked, or track one that is, from HAProxy's statistics as CSV."""
    rows = csv.DictReader(io.StringIO(statistics.removeprefix("# ")))
    return [
        Server(row["pxname"], row["svname"], row["status"], int(row["scur"]))
        for row in rows
        if row["type"] == "2" and row["status"] != "no check"
    ]


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


_SAMPLE = re.compile(
    r'(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>(?:[^"}]|"(?:\\.|[^"\\])*")*)\})? (?P<value>\S+)'
)
_LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')


def read_metrics(text: str) -> list[Sample]:
    """The samples of a Prometheus exposition."""
    matches = (_SAMPLE.match(line) for line in text.splitlines())
    return [
        Sample(
            match["name"],
            {name: _unescape(value) for name, value in _LABEL.findall(match["labels"] or "")},
            float(match["value"]),
        )
        for match in matches
        if match
    ]


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], value)


def read_renewal(samples: Iterable[Sample]) -> Renewal:
    failed, ended = False, None
    for sample in samples:
        match sample:
            case Sample("node_systemd_timer_last_trigger_seconds", {"name": "certbot.timer"}, seconds):
                ended = datetime.fromtimestamp(seconds, UTC) if seconds else None
            case Sample("node_systemd_unit_state", {"name": "certbot.service", "state": "failed"}, value):
                failed = value == 1
            case _:
                pass
    return Renewal(failed, ended)


def read_certificate(der: bytes) -> Certificate:
    certificate = x509.load_der_x509_certificate(der)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    serial = certificate.serial_number
    return Certificate(
        names=names,
        issuer=_common_name(certificate.issuer),
        serial=serial.to_bytes(serial.bit_length() // 8 + 1).lstrip(b"\0").hex().upper(),
        key=_key(certificate.public_key()),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _common_name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _key(key: object) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {CURVES.get(key.curve.name, key.curve.name)}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")


def why_untrusted(certificate: Certificate, domain: str, now: datetime, verification: str) -> str:
    """In one sentence; `verification` is what OpenSSL says."""
    if certificate.issuer == PLACEHOLDER:
        return "it is the placeholder that HAProxy starts with; pulumi up gets the real one"
    if now > certificate.not_after:
        return "it has expired"
    if not certificate.covers(domain):
        return f"it is not for {domain}"
    if "STAGING" in certificate.issuer.upper():
        return "it is of Let's Encrypt's staging directory, which nobody trusts"
    if verification == "self-signed certificate":
        return "it is self-signed"
    if "issuer" in verification or "self-signed" in verification:
        return (
            f"this machine does not know the authority {certificate.issuer}; "
            "if it is yours, name a file with its root in SSL_CERT_FILE"
        )
    return verification


# Judging


def problems(cluster: Cluster, now: datetime) -> list[str]:
    """What is wrong with the cluster, a sentence each."""
    found = [
        f"Port {port} does not answer: {seen.why}."
        for port, seen in cluster.ports.items()
        if isinstance(seen, Unseen)
    ]
    statistics = cluster.ports.get(6080)
    # Where the port is silent that is said already, and a certificate that nobody trusts may be wanted so.
    if isinstance(statistics, Certificate) and statistics.untrusted is None:
        unread = {"statistics": cluster.servers, "load balancer's metrics": cluster.renewal}
        for why in dict.fromkeys(seen.why for seen in unread.values() if isinstance(seen, Unseen)):
            pages = " and the ".join(page for page, seen in unread.items() if seen == Unseen(why))
            found.append(f"The {pages} cannot be read: {why}.")
    if not isinstance(cluster.servers, Unseen):
        down = {server.name for server in cluster.servers if server.state.startswith("DOWN")}
        found += [f"{name} is DOWN." for name in sorted(down)]
    for certificate, ports in _by_certificate(cluster.ports):
        found += [
            f"The certificate on {ports} {what}." for what in _complaints(certificate, cluster.names, now)
        ]
    if isinstance(cluster.renewal, Renewal) and cluster.renewal.failed:
        found.append(
            "The last renewal of the certificate failed; certbot's timer tries again. "
            "On the load balancer, journalctl -u certbot and /var/log/letsencrypt say why."
        )
    return found


def _complaints(certificate: Certificate, names: Sequence[str], now: datetime) -> list[str]:
    if certificate.issuer == PLACEHOLDER:
        return ["is the placeholder"]
    complaints = [f"is not for {name}" for name in names if not certificate.covers(name)]
    left = certificate.not_after - now
    if left < timedelta():
        complaints.append("has expired")
    elif left < certificate.urgent:
        complaints.append(f"has {_days(left)} left")
    if now < certificate.not_before:
        complaints.append("is not valid yet")
    return complaints


# Showing


def report(cluster: Cluster, now: datetime) -> str:
    lines = ["Machines"]
    lines += _columns([(m.name, m.role, m.private_address, m.public_address) for m in cluster.machines])
    lines += ["", "HAProxy's servers"]
    match cluster.servers:
        case Unseen(why):
            lines.append(f"  not shown: {why}")
        case servers:
            rows = [(server.backend, server.name, server.state, str(server.sessions)) for server in servers]
            lines += _columns([("backend", "server", "state", "sessions"), *rows])
    for certificate, ports in _by_certificate(cluster.ports):
        lines += ["", f"Certificate on {ports}"]
        lines += _columns(
            [
                ("names", ", ".join(certificate.names) or "none"),
                ("issuer", certificate.issuer),
                ("serial", certificate.serial),
                ("key", certificate.key),
                ("valid until", f"{_time(certificate.not_after)}, {_days(certificate.not_after - now)} left"),
                ("trusted", f"no: {certificate.untrusted}" if certificate.untrusted else "yes"),
            ]
        )
    lines += ["", "Last renewal", f"  {_renewal(cluster.renewal)}", ""]
    wrong = problems(cluster, now)
    if wrong:
        lines += ["Not healthy", *(f"  {problem}" for problem in wrong)]
    else:
        lines.append(
            "Nothing is wrong" + (" that could be seen" if isinstance(cluster.servers, Unseen) else "")
        )
    return "\n".join(lines)


def _renewal(renewal: Renewal | Unseen | None) -> str:
    match renewal:
        case None:
            return "none: the certificate is your own (tls.certificate)"
        case Unseen(why):
            return f"not shown: {why}"
        case Renewal(failed, datetime() as ended):
            return f"{'failed' if failed else 'succeeded'}, {_time(ended)}"
        case Renewal(failed):
            return "failed" if failed else "none yet on this machine: certbot's timer runs twice a day"


def _by_certificate(ports: Mapping[int, object]) -> list[tuple[Certificate, str]]:
    """Each certificate that is presented, with the ports that present it."""
    presented: dict[Certificate, list[str]] = {}
    for port, seen in ports.items():
        if isinstance(seen, Certificate):
            presented.setdefault(seen, []).append(str(port))
    return [(certificate, ", ".join(on)) for certificate, on in presented.items()]


def _days(left: timedelta) -> str:
    return f"{left.days} day{'' if left.days == 1 else 's'}"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
