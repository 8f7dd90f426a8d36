"""Validates `serverSettings`: the settings of Ant Media Server itself, which are the same on all nodes.

Names and types are those of conf/red5.properties, as the classes ServerSettings and StatsCollector of Ant-Media-Server 3.0 (June 2026)
read them. The names contain dots, so a name is also the path of a nested object: `server.cpu_limit` is `{"server": {"cpu_limit": …}}`.
"""

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import SecretStr

from cluster.settings.rules import Problem

ServerSettings = Mapping[str, object]
"""Values by name, as the user nested them."""

LIVE_NAMES = frozenset({"logLevel", "server.name"})
"""The server takes these over while it runs, by its REST API (CommonRestService.changeServerSettings), and the others at a start.

The API also accepts nodeGroup, but nothing in the source shows that a running cluster reads it again.
"""

SECRET_NAMES = frozenset({"server.jwtServerSecretKey"})

Remedy = str | None
Rule = Callable[[object], Remedy]
"""Returns what to give instead of a wrong value, or None for a valid one."""


def _boolean(value: object) -> Remedy:
    return None if isinstance(value, bool) else "give true or false"


def _integer(minimum: int, maximum: int) -> Rule:
    remedy = f"give a whole number from {minimum} to {maximum}"

    def check(value: object) -> Remedy:
        valid = isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum
        return None if valid else remedy

    return check


def _text(pattern: str, remedy: str) -> Rule:
    def check(value: object) -> Remedy:
        # `pulumi config set --path` makes a number of the text 2.
        valid = isinstance(value, str | int) and not isinstance(value, bool)
        return None if valid and re.fullmatch(pattern, str(value)) else remedy

    return check


_LOG_LEVELS = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF")
_log_level = _text("|".join(_LOG_LEVELS), f"give one of {', '.join(_LOG_LEVELS)}")
_url = _text(r"https?://[!-~]+", "give a URL that begins with https:// or http://")
_hosts = _text(r"[A-Za-z0-9.:,-]+", "give host names or addresses, separated by commas")

_RULES: Mapping[str, Rule] = {
    "appIngestsSrtStreamsWithoutStreamId": _text(r"[A-Za-z0-9_-]+", "give the name of an application"),
    "logLevel": _log_level,
    "nativeLogLevel": _log_level,
    "nodeGroup": _text(r"[A-Za-z0-9._-]+", "give letters, digits, . _ or -"),
    # In releases after 3.0.3, where it is on by default.
    "prometheus.enabled": _boolean,
    "proxy.address": _text(r"[A-Za-z0-9.-]+:\d+", "give HOST:PORT"),
    # StatsCollector replaces values outside of 10 to 100 by these.
    "server.cpu_limit": _integer(10, 100),
    # Each is a divisor or a timer's period, so with 0 the server does not start.
    "server.cpu_measurement_period_ms": _integer(100, 60_000),
    "server.cpu_measurement_window_size": _integer(1, 100),
    "server.heartbeatEnabled": _boolean,
    "server.jwksURL": _url,
    "server.jwtServerControlEnabled": _boolean,
    "server.jwtServerSecretKey": _text(r"[!-~]{32,}", "give at least 32 characters without spaces"),
    "server.kafka_brokers": _hosts,
    "server.localLicenceServerIp": _hosts,
    "server.memory_limit_percentage": _integer(10, 100),
    "server.name": _text(r"[A-Za-z0-9.-]+", "give a host name or an IPv4 address, without scheme and port"),
    "server.statusWebHookURL": _url,
}

_PORT = "HAProxy, the security groups and the other nodes use the default: leave it out"
_REFUSED: Mapping[str, str] = {
    "clusterdb.host": "set databaseUrl",
    "clusterdb.password": "set databaseUrl",
    "clusterdb.user": "set databaseUrl",
    "http.host": _PORT,
    "http.port": _PORT,
    "https.port": _PORT,
    "prometheus.port": "HAProxy reads the metrics at the default: leave it out",
    "rtmp.host": _PORT,
    "rtmp.port": _PORT,
    "rtmps.enabled": "the load balancer ends TLS: set rtmpsPort",
    "server.allowed_dashboard_CIDR": (
        "it would also apply to HAProxy's health check and to the program's own requests, so every node would leave service: "
        "list the administrators' networks in adminCidrs"
    ),
    "server.licence_key": "set licenseKey",
    "server.market_build": "it belongs to the image: leave it out",
    "server.marketplace": "it belongs to the image: leave it out",
    "server.min_free_ram": "Ant Media Server does not read it on Linux: set server.memory_limit_percentage",
    "server.origin_port": _PORT,
    "server.srt_port": _PORT,
    "useGlobalIp": "nodes reach each other only at their private addresses: leave it out",
}


@dataclass(frozen=True)
class ServerSettingsPlan:
    """The settings of every node's server. Each part is a JSON object of values by name."""

    at_start: str
    """The server reads them when it starts. Previews show them."""
    secret: SecretStr | None
    """Likewise, but secret. None if there are none."""
    live: Mapping[str, object]
    """The server takes them over while it runs."""


def find_problems(settings: ServerSettings, applications: Collection[str] | None) -> Iterator[Problem]:
    """Yields what is wrong with the settings of a stack that serves `applications`, if they are known."""
    given: set[str] = set()
    for path, value in _list_values(settings):
        name = ".".join(path)
        message = "it is given twice: give it once" if name in given else _find_mistake(name, value)
        given.add(name)
        if message:
            yield Problem(path, value if name in _RULES or name in _REFUSED else None, message)
    values = flatten(settings)
    if values.get("server.jwtServerControlEnabled") is True and not (
        {"server.jwtServerSecretKey", "server.jwksURL"} & {*values}
    ):
        yield Problem(
            ("server", "jwtServerControlEnabled"),
            True,
            "every token would be refused: also set the secret server.jwtServerSecretKey, or server.jwksURL",
        )
    srt = values.get("appIngestsSrtStreamsWithoutStreamId")
    if srt is not None and applications is not None and str(srt) not in applications:
        yield Problem(
            ("appIngestsSrtStreamsWithoutStreamId",),
            srt,
            f"applications does not list this application: give one of {', '.join(sorted(applications))}",
        )


def _find_mistake(name: str, value: object) -> Remedy:
    if name in _RULES:
        return _RULES[name](value)
    if name not in _REFUSED:
        (similar,) = difflib.get_close_matches(name, [*_RULES, *_REFUSED], n=1) or [None]
        if similar in _RULES:
            return f"Ant Media Server 3 has no server setting of this name: did you mean {similar}?"
        if similar is None:
            return (
                f"Ant Media Server 3 has no server setting of this name: the settings are {', '.join(_RULES)}"
            )
        name = similar
    return f"{name} cannot be set here: {_REFUSED[name]}"


def _list_values(settings: ServerSettings, *path: str) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _list_values(cast(dict[str, object], value), *path, key)
        else:
            yield (*path, key), value


def flatten(settings: ServerSettings) -> dict[str, object]:
    """Returns the values by their name in red5.properties."""
    return {".".join(path): value for path, value in _list_values(settings)}


def plan_server_settings(settings: ServerSettings) -> ServerSettingsPlan:
    """Separates the settings by how and when the server gets them."""
    values = dict(sorted(flatten(settings).items()))
    secret = {name: value for name, value in values.items() if name in SECRET_NAMES}
    live = {name: value for name, value in values.items() if name in LIVE_NAMES}
    at_start = {name: value for name, value in values.items() if name not in secret.keys() | live.keys()}
    return ServerSettingsPlan(json.dumps(at_start), SecretStr(json.dumps(secret)) if secret else None, live)


def list_secrets(settings: object) -> list[tuple[str, ...]]:
    """Returns the paths of the secrets in the setting as the user gave it: `("server", "jwtServerSecretKey")`."""
    if not isinstance(settings, dict):
        return []
    values = _list_values(cast(dict[str, object], settings))
    return [path for path, _ in values if ".".join(path) in SECRET_NAMES]
