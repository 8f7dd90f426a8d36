"""Validates `applicationSettings`: the settings of Ant Media's applications.

app_settings.json has the names and types of the class AppSettings in Ant-Media-Server 3.0 (June 2026), as its REST API
reads them. The API ignores unknown names, such as those with the prefix `settings.` of version 2. They are refused here.
"""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
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
    "clusterCommunicationKey": "the nodes agree on it themselves: leave it out",
}

# cluster/port_table.py opens these ports.
_WEBRTC_PORTS = range(50000, 60001)


def find_problems(
    settings: AppSettings, applications: Collection[str], managed: Collection[str] = ()
) -> Iterator[Problem]:
    """Yields what is wrong with the settings of a stack that serves `applications`.

    `managed` are the names that `recordings` determines.
    """
    for application, values in settings.items():
        if application != ALL and application not in applications:
            known = ", ".join(sorted(applications))
            message = f"applications does not list this application: give {known}, or {ALL} for all of them"
            yield Problem((application,), values, message)
        for name, value in values.items():
            message = "recordings sets it: leave it out" if name in managed else _find_mistake(name, value)
            if message:
                yield Problem((application, name), value, message)


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
    if name in ("webRTCPortRangeMin", "webRTCPortRangeMax") and value not in _WEBRTC_PORTS:
        return f"nodes accept WebRTC media on {_WEBRTC_PORTS[0]} to {_WEBRTC_PORTS[-1]}: give a port in this range"
    return None


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


def list_secrets(settings: object) -> list[str]:
    """Returns the paths of the secrets in the setting as the user gave it: `applicationSettings.LiveApp.jwtSecretKey`."""
    if not isinstance(settings, dict):
        return []
    return [
        f"applicationSettings.{application}.{name}"
        for application, values in cast(dict[str, object], settings).items()
        if isinstance(values, dict)
        for name in cast(dict[str, object], values)
        if name in SECRET_NAMES
    ]
