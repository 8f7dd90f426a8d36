"""Reads the settings of a stack from its configuration, or reports all problems at once."""

import dataclasses
import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from cluster.settings import app_settings, server_settings
from cluster.settings.model import (
    GENERATED_SECRETS,
    NAMESPACE,
    REQUIRED_FOR_OWN_CERTIFICATE,
    REQUIRED_FROM_USER,
    SECRETS,
    Settings,
)
from cluster.settings.rules import parse_json

# Functions that return the paths of the secrets in a setting.
_SECRETS_INSIDE = {
    "applicationSettings": app_settings.list_secrets,
    "serverSettings": server_settings.list_secrets,
}


class SettingsError(ValueError):
    """All problems of a stack's settings, one line each: key, value, remedy. Shows no secret."""


def read_settings(raw: Mapping[str, object], secret_keys: Collection[str], now: datetime) -> Settings:
    """Returns the settings, or raises `SettingsError` with all problems.

    `raw` is the stack's configuration: keys without namespace, values as text or parsed JSON. An empty text means that
    the setting is not given, because Pulumi.yaml declares settings without default that way.
    `secret_keys` are the keys with encrypted values. `now` is when certificates must be valid.
    """
    given = {key: value for key, value in raw.items() if value != ""}
    problems = [
        f"{NAMESPACE}:{key} is in plain text: encrypt it with pulumi config set --secret {NAMESPACE}:{key}, "
        "and give a new value if anyone else may have read this one"
        for key in SECRETS
        if key in given and key not in secret_keys
    ]
    plain_secrets = {
        key: [_format_path((key, *path)) for path in list_secrets(parse_json(given.get(key)))]
        for key, list_secrets in _SECRETS_INSIDE.items()
        if key not in secret_keys
    }
    problems += [
        f"{NAMESPACE}:{path} is in plain text: encrypt it with pulumi config set --secret --path '{NAMESPACE}:{path}', "
        "and give a new value if anyone else may have read this one"
        for paths in plain_secrets.values()
        for path in paths
    ]
    if "tls" not in given:
        # An empty object makes pydantic report acme.email as missing, not acme.
        given.setdefault("acme", "{}")
    else:
        if given.pop("acme", None) is not None:
            problems.append(
                f"{NAMESPACE}:acme and {NAMESPACE}:tls are both set, but the certificate has only one source: "
                f"pulumi config rm {NAMESPACE}:acme, or pulumi config rm {NAMESPACE}:tls"
            )
        if _has_private_key(given["tls"]) and "tls" not in secret_keys:
            problems.append(
                f"{NAMESPACE}:tls.privateKey is in plain text: encrypt it with "
                f"{REQUIRED_FOR_OWN_CERTIFICATE['tls.privateKey']}, "
                "and give a new key and certificate if anyone else may have read this one"
            )
    try:
        settings = TypeAdapter(Settings).validate_python(given, context={"now": now})
    except ValidationError as error:
        hidden_keys = {*SECRETS, "tls", *secret_keys, *(key for key, paths in plain_secrets.items() if paths)}
        problems += [_format_problem(detail, hidden_keys) for detail in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError("\n".join(sorted(problems)))


def _has_private_key(tls: object) -> bool:
    tls = parse_json(tls)
    return isinstance(tls, dict) and "privateKey" in tls


def _format_problem(detail: ErrorDetails, hidden_keys: Collection[str]) -> str:
    """Returns one line of a `SettingsError`. The values of hidden keys, and of all below them, are not shown."""
    # Parts such as <own> are tags of a union, not keys.
    path = [part for part in detail["loc"] if not str(part).startswith("<")]
    if detail["type"] == "value_error":
        # Of a default, pydantic gives the name of the field.
        path[0] = to_camel(str(path[0]))
    path_text = _format_path(path)
    key = f"{NAMESPACE}:{path_text}"
    match detail["type"]:
        case "missing":
            return f"{key} is not set: {_find_remedy(path_text)}"
        case "unexpected_keyword_argument" if path == ["amsVersion"]:
            # Ant Media's installer has no option for it, and the names of Marketplace images follow no rule (AMS issue 5019).
            return f"{key} is not a setting: mediaImage (the id of an image) or amsZip determines the version, see docs/upgrade.md"
        case "unexpected_keyword_argument":
            known_keys = _list_known_keys(path[:-1])
            similar = difflib.get_close_matches(str(path[-1]), known_keys, n=1)
            remedy = f"did you mean {similar[0]}?" if similar else f"the settings are {', '.join(known_keys)}"
            return f"{key} is not a setting: {remedy}"
        case "dict_type" if path[0] == "applicationSettings" and path[-1] in app_settings.NAMES:
            return (
                f"{key} is not valid: put it under an application, or under {app_settings.ALL} for all of them: "
                f"pulumi config set --path {NAMESPACE}:applicationSettings.{app_settings.ALL}.{path[-1]} VALUE"
            )
        case "value_error":
            message = str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"]
        case kind:
            message = _TYPE_REMEDIES.get(kind, detail["msg"]).format(key=key, **detail.get("ctx", {}))
    # A text in place of an object of settings may be, or contain, a secret.
    misplaced = path[0] in _SECRETS_INSIDE and detail["type"] == "dict_type"
    value = "" if misplaced or str(path[0]) in hidden_keys else _format_value(detail["input"])
    return f"{key} is {value}: {message}" if value else f"{key} is not valid: {message}"


# By pydantic's type of error.
_TYPE_REMEDIES = {
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "string_type": "give a text",
    "literal_error": "give {expected}",
    "tuple_type": "give a list: set each element with pulumi config set --path '{key}[0]' VALUE",
    "dict_type": "give an object: set each of its keys with pulumi config set --path {key}.NAME VALUE",
    "dataclass_type": "give an object: set each of its keys with pulumi config set --path {key}.NAME VALUE",
}


def _find_remedy(missing_key: str) -> str:
    commands = {**REQUIRED_FROM_USER, **REQUIRED_FOR_OWN_CERTIFICATE}
    if missing_key in commands:
        return commands[missing_key]
    if missing_key in GENERATED_SECRETS:
        return "make stack STACK=NAME generates it"
    return "this setting is required"


def _format_path(path: Iterable[str | int]) -> str:
    """Returns a path as the user writes it: `network.subnets[0].id`. Pulumi wants quotes around a key with a dot: `["a.b"]`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f'["{part}"]' if "." in part else f".{part}"
        for part in path
    ).removeprefix(".")


def _format_value(value: object) -> str:
    """Returns a value as JSON of at most 100 characters, or an empty text if it must not be shown."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        value = parse_json(value)
    text = json.dumps(value, ensure_ascii=False, default=dataclasses.asdict)
    if value is None or "-----BEGIN" in text:
        return ""
    return text if len(text) <= 100 else f"{text[:99]}…"


def _list_known_keys(path: Iterable[str | int]) -> list[str]:
    """Returns the keys that the object at `path` may have."""
    models: list[type] = [Settings]
    for part in path:
        if isinstance(part, str):
            models = [
                inner
                for model in models
                for name, hint in get_type_hints(model).items()
                if to_camel(name) == part
                for inner in _find_models(hint)
            ]
    return [to_camel(name) for model in models for name in get_type_hints(model)]


def _find_models(hint: Any) -> Iterator[type]:
    """Yields the dataclasses in a type hint."""
    if dataclasses.is_dataclass(hint):
        yield cast(type, hint)
    for argument in get_args(hint):
        yield from _find_models(argument)
