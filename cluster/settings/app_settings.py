"""Validates `applicationSettings`: the settings of Ant Media's applications.

app_settings.json has the names and types of the class AppSettings in Ant-Media-Server 3.0 (June 2026), as its REST API
reads them. The API ignores unknown names, such as those with the prefix `settings.` of version 2. They are refused here.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import cast

from cluster.settings.rules import Problem

ALL = "*"
"""Stands for every application of `applications`."""

AppSettings = Mapping[str, Mapping[str, object]]
"""Values by application, or `ALL`, and by the setting's name."""

SECRET_NAMES = frozenset(
    {
        "apnPrivateKey",
        "firebaseAccountKeyJSON",
        "jwtSecretKey",
        "jwtStreamSecretKey",
        "s3SecretKey",
        "subscriberAuthenticationKey",
        "timeTokenSecretForPlay",
        "timeTokenSecretForPublish",
        "tokenHashSecret",
        "turnServerCredential",
    }
)

_KINDS: Mapping[str, str] = json.loads(Path(__file__).with_name("app_settings.json").read_text())
NAMES = frozenset(_KINDS)

_TYPES: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "number": (int, float),
    # `pulumi config set --path` makes a number of the text 2.
    "text": (str, int, float),
    "list": (list,),
    "object": (dict,),
}

_REFUSED: Mapping[str, str] = {
    "allowedPublisherCIDR": (
        "Ant Media Server would compare it with the load balancer's address: list the networks in publisherCidrs"
    ),
    "clusterCommunicationKey": "the program gives all nodes the same one: leave it out",
}

# cluster/port_table.py opens these ports.
_WEBRTC_PORTS = range(50000, 60001)

# AntMediaApplicationAdapter.isTokenSecuritySettingsValid refuses all settings of an application with two of one row.
_TOKEN_CONTROLS = (
    ("publishTokenControlEnabled", "publishJwtControlEnabled", "enableTimeTokenForPublish"),
    ("playTokenControlEnabled", "playJwtControlEnabled", "enableTimeTokenForPlay"),
)


def find_problems(
    settings: AppSettings, applications: Collection[str], managed: Collection[str] = ()
) -> Iterator[Problem]:
    """Yields what is wrong with the settings of a stack that serves `applications`.

    `managed` are the names that `recordings` determines.
    """
    for application, values in settings.items():
        if application != ALL and application not in applications:
            listed = ", ".join(sorted(applications))
            message = f"applications does not list this application: give {listed}, or {ALL} for all of them"
            yield Problem((application,), None, message)
        for name, value in values.items():
            message = "recordings sets it: leave it out" if name in managed else _find_mistake(name, value)
            if message:
                known = name in NAMES or name in _REFUSED
                yield Problem((application, name), value if known else None, message)
        for name, message in _find_conflicts(values, settings.get(ALL, {})):
            yield Problem((application, name), values[name], message)


def _find_conflicts(own: Mapping[str, object], of_all: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yields the names of an application's own values that contradict others of the application, with the remedy."""
    merged = {**of_all, **own}
    for controls in _TOKEN_CONTROLS:
        enabled = [name for name in controls if merged.get(name) is True]
        for name in [name for name in enabled if name in own][:1] if len(enabled) > 1 else ():
            others = " and ".join(other for other in enabled if other != name)
            yield (
                name,
                f"Ant Media Server allows one kind of token control: set {others} to false, or this one",
            )
    names = ("webRTCPortRangeMin", "webRTCPortRangeMax")
    lowest, highest = (merged.get(name) for name in names)
    if isinstance(lowest, int) and isinstance(highest, int) and lowest > highest:
        name = next(name for name in names if name in own)
        yield name, f"the range would be {lowest} to {highest}: give a minimum that is not above the maximum"


def _find_mistake(name: str, value: object) -> str | None:
    if name in _REFUSED:
        return _REFUSED[name]
    if name not in _KINDS:
        similar = difflib.get_close_matches(name.removeprefix("settings."), _KINDS, n=1)
        remedy = f"did you mean {similar[0]}?" if similar else "cluster/settings/app_settings.json lists them"
        return f"Ant Media Server 3 has no application setting of this name: {remedy}"
    kind = _KINDS[name]
    # JSON's true is an int in Python.
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return "give true or false" if kind == "boolean" else f"give {_with_article(kind)}"
    if name == "remoteAllowedCIDR" and not all(map(_is_network, str(value).split(","))):
        return "give addresses or networks, separated by commas: 127.0.0.1,203.0.113.0/24, for example"
    if name in ("webRTCPortRangeMin", "webRTCPortRangeMax") and value not in _WEBRTC_PORTS:
        return f"nodes accept WebRTC media on {_WEBRTC_PORTS[0]} to {_WEBRTC_PORTS[-1]}: give a port in this range"
    return None


def _is_network(text: str) -> bool:
    """True for an address, a network, or nothing: the server ignores everything else, and netmasks (NetMask)."""
    text = text.strip()
    try:
        return not text or bool(re.fullmatch(r"[^/]+(/[0-9]+)?", text) and ip_network(text, strict=False))
    except ValueError:
        return False


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == "object" else f"a {kind}"


def merge_for_each(settings: AppSettings, applications: Collection[str]) -> dict[str, dict[str, object]]:
    """Returns the values of each application that has any. Its own values take precedence over those of `ALL`."""
    merged = {
        application: {**settings.get(ALL, {}), **settings.get(application, {})}
        for application in sorted(applications)
    }
    return {
        application: {
            name: str(value) if _KINDS[name] == "text" else value for name, value in sorted(values.items())
        }
        for application, values in merged.items()
        if values
    }


def replaces_addresses(settings: AppSettings) -> bool:
    """True if an application announces server.name to WebRTC clients as its node's address."""
    return any(values.get("replaceCandidateAddrWithServerAddr") is True for values in settings.values())


def add_for_each(
    settings: Mapping[str, Mapping[str, object]], applications: Collection[str], added: Mapping[str, object]
) -> dict[str, dict[str, object]]:
    """Returns the settings of each application with further ones. Those that it already has take precedence."""
    return {application: {**added, **settings.get(application, {})} for application in sorted(applications)}


def list_secrets(settings: object) -> list[tuple[str, ...]]:
    """Returns the paths of the secrets in the setting as the user gave it: `("LiveApp", "jwtSecretKey")`."""
    if not isinstance(settings, dict):
        return []
    return [
        (application, name)
        for application, values in cast(dict[str, object], settings).items()
        if isinstance(values, dict)
        for name in cast(dict[str, object], values)
        if name in SECRET_NAMES
    ]
