"""Evaluates the part of IAM's policy language that the cluster uses; denies everything else."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]
"""An IAM policy document."""


@dataclass(frozen=True)
class AccessRequest:
    """The action, resource and condition keys that IAM compares with policies."""

    action: str
    resource: str
    context: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The condition keys of the action; each may have several values."""


class _UnsupportedError(Exception):
    """A policy uses an element that this module does not support."""


def is_allowed(policies: Iterable[Policy], access: AccessRequest) -> bool:
    """Returns True if a statement allows the access and none denies it."""
    statements = [statement for policy in policies for statement in _as_list(policy["Statement"])]
    try:
        effects = {statement["Effect"] for statement in statements if _applies(statement, access)}
    except _UnsupportedError as error:
        print(
            f"{access.action} is denied: the local cloud does not support {error} in a policy",
            file=sys.stderr,
        )
        return False
    return effects == {"Allow"}


def _applies(statement: Policy, access: AccessRequest) -> bool:
    if unknown := statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise _UnsupportedError(f"the element {', '.join(sorted(unknown))}")
    return (
        any(
            _matches_wildcard(pattern.lower(), access.action.lower())
            for pattern in _as_list(statement["Action"])
        )
        and any(_matches_wildcard(pattern, access.resource) for pattern in _as_list(statement["Resource"]))
        and all(
            _condition_holds(operator, key, _as_list(expected), access)
            for operator, keys in statement.get("Condition", {}).items()
            for key, expected in keys.items()
        )
    )


def _condition_holds(operator: str, key: str, expected: Sequence[str], access: AccessRequest) -> bool:
    values = {name.lower(): values for name, values in access.context.items()}.get(key.lower())
    if values is None:
        raise _UnsupportedError(f"the condition key {key} of {access.action}")
    if operator != "ForAllValues:StringEquals":
        raise _UnsupportedError(f"the condition operator {operator}")
    return set(values) <= set(expected)


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _matches_wildcard(pattern: str, text: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, text, re.DOTALL) is not None
