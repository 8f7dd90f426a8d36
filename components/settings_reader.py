"""Reads settings, or tells every problem of a configuration at once: the key as it is written, the value, what would do."""

import dataclasses
import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from components.setting_rules import from_json
from components.settings import GENERATED_SECRETS, NAMESPACE, SECRETS, SET_BY_HAND, Settings


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings, one line each. Shows no secret."""


def read_settings(raw: Mapping[str, object], secret_keys: Collection[str]) -> Settings:
    """The settings, from a stack's configuration: keys without namespace, values as text or as parsed JSON.

    An empty text is a setting that was not given: that is how Pulumi.yaml says "no default".
    """
    # Without any `acme`, what is missing is still `acme.email`.
    given: dict[str, object] = {"acme": "{}", **{key: value for key, value in raw.items() if value != ""}}
    problems = [
        f"{NAMESPACE}:{key} is in plain text: encrypt it with pulumi config set --secret {NAMESPACE}:{key}, "
        "and if anybody else may have read it, with a new value"
        for key in SECRETS
        if key in given and key not in secret_keys
    ]
    try:
        settings = TypeAdapter(Settings).validate_python(given)
    except ValidationError as error:
        hidden = {*SECRETS, *secret_keys}
        problems += [_describe(detail, hidden) for detail in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError("\n".join(sorted(problems)))


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
            advice = _TYPE_ADVICE.get(kind, detail["msg"]).format(key=key)
    # What a secret was is not shown, nor anything that lies in an encrypted object.
    value = "will not do" if str(path[0]) in hidden else f"is {_shown(detail['input'])}"
    return f"{key} {value}: {advice}"


_TYPE_ADVICE = {
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "string_type": "give a text",
    "tuple_type": "give a list, each element by pulumi config set --path '{key}[0]' VALUE",
    "dataclass_type": "give an object, each of its keys by pulumi config set --path {key}.NAME VALUE",
}


def _how_to_set(key: str) -> str:
    if key in SET_BY_HAND:
        return SET_BY_HAND[key]
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
