"""Policies: JSON that says the same in many ways."""

import json
from collections.abc import Callable
from typing import Any

from sandbox.plugins.properties import Value


def equivalent(one: Value, other: Value) -> bool:
    try:
        return bool(_meaning(json.loads(str(one))) == _meaning(json.loads(str(other))))
    except ValueError:
        return False


def _meaning(part: Any) -> Any:
    """In a policy no list has an order, and a list of one is that one."""
    if isinstance(part, dict):
        return {key: _meaning(value) for key, value in part.items()}
    if isinstance(part, list):
        parts = sorted(map(_meaning, part), key=repr)
        return parts[0] if len(parts) == 1 else parts
    return part


def as_known(known: Value, found: dict[str, Any]) -> str:
    """A policy that was read: in the words in which it was given, as long as it means the same."""
    text = json.dumps(found)
    return str(known) if equivalent(known, text) else text


def objection(name: str) -> Callable[[str], str]:
    def to(text: str) -> str:
        try:
            is_object = isinstance(json.loads(text), dict)
        except ValueError as problem:
            return f'"{name}" contains an invalid JSON policy: {problem}'
        return "" if is_object else f'"{name}" contains an invalid JSON policy: not a JSON object'

    return to
