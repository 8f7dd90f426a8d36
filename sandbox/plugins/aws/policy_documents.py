"""Compares and checks IAM policies, which are JSON with several spellings for the same meaning."""

import json
from collections.abc import Callable
from typing import Any

from sandbox.plugins.properties import Value


def equivalent(one: Value, other: Value) -> bool:
    """Returns whether two policies have the same meaning."""
    try:
        return bool(_normalize(json.loads(str(one))) == _normalize(json.loads(str(other))))
    except ValueError:
        return False


def _normalize(part: Any) -> Any:
    """Returns the part with sorted lists. A list with one element becomes that element."""
    if isinstance(part, dict):
        return {key: _normalize(value) for key, value in part.items()}
    if isinstance(part, list):
        parts = sorted(map(_normalize, part), key=repr)
        return parts[0] if len(parts) == 1 else parts
    return part


def keep_given_text(given: Value, found: dict[str, Any]) -> str:
    """Returns the given text of a policy if the policy found has the same meaning, else the policy found."""
    text = json.dumps(found)
    return str(given) if equivalent(given, text) else text


def validator(name: str) -> Callable[[str], str]:
    """Returns a validator that accepts a JSON object. `name` is the input's name in the error."""

    def validate(text: str) -> str:
        try:
            is_object = isinstance(json.loads(text), dict)
        except ValueError as problem:
            return f'"{name}" contains an invalid JSON policy: {problem}'
        return "" if is_object else f'"{name}" contains an invalid JSON policy: not a JSON object'

    return validate
