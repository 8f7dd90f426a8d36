"""Reads the inputs of Pulumi resources, for the preview and for drift."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, cast

INSTANCE = "aws:ec2/instance:Instance"
REMOTE_COMMAND = "command:remote:Command"
IGNORED_INPUTS = ("rootBlockDevice.tags", "associatePublicIpAddress")
"""Inputs of instances that the program ignores (`ignore_changes` in components/machine.py).

A refresh changes the first after new default tags, and the second while the machine is stopped. As prefixes of paths they
include `rootBlockDevice.tagsAll`.
"""


def flatten(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Yields the path and value of every leaf, without the engine's own keys (`__defaults`).

    A JSON document in a string is flattened too, so that its formatting does not matter.
    """
    if isinstance(value, str) and value.startswith("{"):
        value = _parse_json(value)
    if isinstance(value, dict):
        for key, member in sorted(cast(dict[str, object], value).items()):
            if not key.startswith("__"):
                yield from flatten(f"{path}.{key}".lstrip("."), member)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[object], value)):
            yield from flatten(f"{path}[{index}]", item)
    elif value is not None:
        yield path, value


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def find_changed_paths(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Returns the paths whose values are not the same in two flattened resources."""
    return [path for path in {**old, **new} if old.get(path) != new.get(path)]


def sort_lists(value: Any) -> Any:
    """Sorts all lists in a value, because AWS returns most of them in any order."""
    match value:
        case dict():
            return {key: sort_lists(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            items = map(sort_lists, cast(list[Any], value))
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
        case _:
            return value


def parse_script(inputs: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Returns the name and arguments of the script that a remote command runs; empty when it runs none."""
    try:
        words = shlex.split(inputs.get("create", ""), comments=True)
    except ValueError:
        return "", []
    at = next((index for index, word in enumerate(words) if word.endswith((".sh", ".py"))), None)
    return ("", []) if at is None else (words[at].rpartition("/")[2], words[at + 1 :])


def format_type(type: str) -> str:
    """Formats a type token: `aws:ec2/eipAssociation:EipAssociation` becomes "Elastic IP association"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type.rpartition(":")[2])
    return words.capitalize().replace("Eip", "Elastic IP")
