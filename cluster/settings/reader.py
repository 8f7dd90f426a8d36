"""Reads settings, or tells every problem of a configuration at once: the key as it is written, the value, what would do."""

import dataclasses
import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from cluster.settings.model import (
    CERTIFICATE_SET_BY_HAND,
    GENERATED_SECRETS,
    NAMESPACE,
    SECRETS,
    SET_BY_HAND,
    Settings,
)
from cluster.settings.rules import from_json


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings, one line each. Shows no secret."""


def read_settings(raw: Mapping[str, object], secret_keys: Collection[str], now: datetime) -> Settings:
    """The settings, from a stack's configuration: keys without namespace, values as text or as parsed JSON.

    `now` is what certificates are judged by.

    An empty text is a setting that was not given: that is how Pulumi.yaml says "no default".
    """
    given = {key: value for key, value in raw.items() if value != ""}
    problems = [
        f"{NAMESPACE}:{key} is in plain text: encrypt it with pulumi config set --secret {NAMESPACE}:{key}, "
        "and if anybody else may have read it, with a new value"
        for key in SECRETS
        if key in given and key not in secret_keys
    ]
    if "tls" not in given:
        # Without any `acme`, what is missing is still `acme.email`.
        given.setdefault("acme", "{}")
    else:
        if given.pop("acme", None) is not None:
            problems.append(
                f"{NAMESPACE}:acme and {NAMESPACE}:tls are both set, but the certificate comes from one of them: "
                f"pulumi config rm {NAMESPACE}:acme, or pulumi config rm {NAMESPACE}:tls"
            )
        if _has_private_key(given["tls"]) and "tls" not in secret_keys:
            problems.append(
                f"{NAMESPACE}:tls.privateKey is in plain text: encrypt it with "
                f"{CERTIFICATE_SET_BY_HAND['tls.privateKey']}, and if anybody else may have read it, "
                "with a new key and its certificate"
            )
    try:
        settings = TypeAdapter(Settings).validate_python(given, context={"now": now})
    except ValidationError as error:
        hidden = {*SECRETS, "tls", *secret_keys}
        problems += [_describe(detail, hidden) for detail in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError("\n".join(sorted(problems)))


def _has_private_key(tls: object) -> bool:
    tls = from_json(tls)
    return isinstance(tls, dict) and "privateKey" in tls


def _describe(detail: ErrorDetails, hidden: Collection[str]) -> str:
    """One line of a `SettingsError`: the key as it is written, the value unless hidden, and what would do."""
    path = [part for part in detail["loc"] if not str(part).startswith("<")]
    dotted = _dotted(path)
    key = f"{NAMESPACE}:{dotted}"
    match detail["type"]:
        case "missing":
            return f"{key} is not set: {_how_to_set(dotted)}"
        case "unexpected_keyword_argument":
            known = _known_keys(path[:-1])
            similar = difflib.get_close_matches(str(path[-1]), known, n=1)
            advice = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(known)}"
            return f"{key} is not a setting: {advice}"
        case "value_error":
            advice = str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"]
        case kind:
            advice = _TYPE_ADVICE.get(kind, detail["msg"]).format(key=key, **detail.get("ctx", {}))
    # What a secret was is not shown, nor anything that lies in an encrypted object; a file's text need not be.
    shown = "" if str(path[0]) in hidden else _shown(detail["input"])
    value = f"is {shown}" if shown else "will not do"
    return f"{key} {value}: {advice}"


_TYPE_ADVICE = {
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "string_type": "give a text",
    "literal_error": "give {expected}",
    "tuple_type": "give a list, each element by pulumi config set --path '{key}[0]' VALUE",
    "dataclass_type": "give an object, each of its keys by pulumi config set --path {key}.NAME VALUE",
}


def _how_to_set(key: str) -> str:
    by_hand = {**SET_BY_HAND, **CERTIFICATE_SET_BY_HAND}
    if key in by_hand:
        return by_hand[key]
    if key in GENERATED_SECRETS:
        return "make stack STACK=NAME generates it"
    return "this key is needed"


def _dotted(path: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    if isinstance(value, str) and value.startswith(("{", "[")):
        value = from_json(value)
    text = json.dumps(value, ensure_ascii=False, default=dataclasses.asdict)
    if "-----BEGIN" in text:
        return ""
    return text if len(text) <= 100 else f"{text[:99]}…"


def _known_keys(path: Iterable[str | int]) -> list[str]:
    """The keys that the object at `path` may have."""
    models: list[type] = [Settings]
    for part in path:
        if isinstance(part, str):
            models = [
                inner
                for model in models
                for name, hint in get_type_hints(model).items()
                if to_camel(name) == part
                for inner in _models_in(hint)
            ]
    return [to_camel(name) for model in models for name in get_type_hints(model)]


def _models_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield cast(type, hint)
    for argument in get_args(hint):
        yield from _models_in(argument)
