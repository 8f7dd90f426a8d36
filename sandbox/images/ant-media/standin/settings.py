"""Reads the settings from the same files and keys as the original."""

import ipaddress
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import yaml

HOME = Path("/usr/local/antmedia")
WEBAPPS = HOME / "webapps"
LOGS = Path("/var/log/antmedia")

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class UnusableDatabaseError(Exception):
    """The server cannot use the configured database, and must stop."""


@dataclass(frozen=True)
class RedisDatabase:
    """The cluster's Redis or Valkey."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None


@dataclass(frozen=True)
class MongoDatabase:
    """The cluster's MongoDB."""

    url: str


@dataclass(frozen=True)
class Settings:
    host_name: str
    address: str
    """Address at which other nodes reach this one."""
    database: RedisDatabase | MongoDatabase | None
    """None outside cluster mode."""
    dashboard_networks: Networks
    applications: tuple[str, ...]
    server_jwt_secret: str | None
    serves_metrics: bool
    metrics_port: int


def read_settings() -> Settings:
    server = read_properties(HOME / "conf/red5.properties")
    # change_server_mode.sh enables cluster mode by uncommenting the beans between these marks.
    clustered = "<!-- cluster start -->" in (HOME / "conf/jee-container.xml").read_text()
    apps = (file.parent.parent.name for file in sorted(WEBAPPS.glob("*/WEB-INF/red5-web.properties")))
    return Settings(
        host_name=socket.gethostname(),
        address=os.environ.get("AMS_HOST_ADDRESS") or _default_route_address(),
        database=_database(server) if clustered else None,
        dashboard_networks=parse_networks(server["server.allowed_dashboard_CIDR"]),
        applications=tuple(name for name in apps if name != "root"),
        server_jwt_secret=(
            server["server.jwtServerSecretKey"]
            if server["server.jwtServerControlEnabled"] == "true"
            else None
        ),
        serves_metrics=server.get("prometheus.enabled") == "true",
        metrics_port=int(server.get("prometheus.port", "9090")),
    )


def read_properties(file: Path) -> dict[str, str]:
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): re.sub(r"\\(.)", r"\1", value.strip()) for key, _, value in pairs}


def write_properties(file: Path, values: dict[str, str]) -> None:
    """Writes a file as Java's Properties.store does: without comments, with escaped colons and equals signs in the values."""
    lines = [f"{key}={_escape(value)}\n" for key, value in values.items()]
    file.write_text(f"#{time.ctime()}\n{''.join(lines)}")


def _escape(value: str) -> str:
    return re.sub(r"([\\:=#!])", r"\\\1", value)


def parse_networks(text: str) -> Networks:
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(","))


def _database(server: dict[str, str]) -> RedisDatabase | MongoDatabase:
    url = server["clusterdb.host"]
    user, password = server["clusterdb.user"] or None, server["clusterdb.password"] or None
    if url.startswith("/"):
        try:
            single = yaml.safe_load(Path(url).read_text())["singleServerConfig"]
            url, user, password = single["address"], single.get("username"), single.get("password")
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise UnusableDatabaseError(
                f"{url} is not a Redisson file with singleServerConfig: {error}"
            ) from error
    if url.startswith("redis"):
        return _parse_redis_url(url, user, password)
    # The original treats everything else, even a bare address, as MongoDB (MongoStore.getMongoConnectionUri).
    return MongoDatabase(url if url.startswith(("mongodb://", "mongodb+srv://")) else f"mongodb://{url}")


def _parse_redis_url(url: str, user: str | None, password: str | None) -> RedisDatabase:
    """Reads a URL as the class RedisURI of Redisson 3.24.3 does, the original's client.

    It has no default port, does not decode percent-encoded characters, and ignores path and query.
    """
    if not url.startswith(("redis://", "rediss://")):
        raise UnusableDatabaseError("Redis url should start with redis:// or rediss:// (for SSL connection)")
    if url.count(":") < 2:
        raise UnusableDatabaseError("Redis url doesn't contain a port")
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UnusableDatabaseError(f"the address is invalid: {error}") from error
    if not host or not port:
        raise UnusableDatabaseError("the address is invalid: no host or port")
    return RedisDatabase(
        host, port, parts.scheme == "rediss", parts.username or user, parts.password or password
    )


def _default_route_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing. The kernel chooses the source address.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
