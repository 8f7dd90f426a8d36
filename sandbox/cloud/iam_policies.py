"""Whether a role's policies let a request through: as much of IAM as the cluster needs. What is not known here is refused."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]
"""An IAM policy document."""


@dataclass(frozen=True)
class Demand:
    """What a request comes to, in IAM's terms."""

    action: str
    resource: str
    context: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The condition keys of this action and their values, all of which may be several."""


class _UnknownError(Exception):
    """Something that is in a policy and not in here."""


def allow(policies: Iterable[Policy], demand: Demand) -> bool:
    statements = [statement for policy in policies for statement in _several(policy["Statement"])]
    try:
        effects = {statement["Effect"] for statement in statements if _applies(statement, demand)}
    except _UnknownError as error:
        print(f"{demand.action} is refused: the local cloud's IAM does not know {error}", file=sys.stderr)
        return False
    return effects == {"Allow"}


def _applies(statement: Policy, demand: Demand) -> bool:
    if unknown := statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise _UnknownError(f"a statement's {', '.join(sorted(unknown))}")
    return (
        any(_like(pattern.lower(), demand.action.lower()) for pattern in _several(statement["Action"]))
        and any(_like(pattern, demand.resource) for pattern in _several(statement["Resource"]))
        and all(
            _fulfilled(operator, key, _several(wanted), demand)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _fulfilled(operator: str, key: str, wanted: Sequence[str], demand: Demand) -> bool:
    quantifier, _, comparison = operator.rpartition(":")
    given = {name.lower(): values for name, values in demand.context.items()}.get(key.lower())
    if given is None:
        raise _UnknownError(f"the key {key} for {demand.action}")
    # A key with several values is no use without a quantifier: IAM's own checks warn of it.
    if quantifier != "ForAllValues" or comparison not in ("StringEquals", "StringLike"):
        raise _UnknownError(f"the operator {operator}")
    return all(
        any(value == one if comparison == "StringEquals" else _like(one, value) for one in wanted)
        for value in given
    )


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _like(pattern: str, text: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, text, re.DOTALL) is not None
