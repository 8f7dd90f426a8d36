"""What a stack costs a month, by prices that the user keeps. Traffic is not in it: nobody knows it beforehand."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from operations.preview.changes import INSTANCE
from policy.rules import Resource


@dataclass(frozen=True)
class Prices:
    currency: str
    hours_a_month: Decimal
    instance_hour: Mapping[str, Decimal]
    """By instance type."""
    volume_gib_month: Decimal
    public_ipv4_hour: Decimal
    secret_month: Decimal


@dataclass(frozen=True)
class Line:
    """One kind of thing that costs."""

    kind: str
    before: int
    after: int
    price: Decimal
    """Of one, a month."""

    @property
    def cost_before(self) -> Decimal:
        return self.before * self.price

    @property
    def cost_after(self) -> Decimal:
        return self.after * self.price


@dataclass(frozen=True)
class Cost:
    currency: str
    lines: Sequence[Line]
    without_price: Sequence[str]
    """What is not counted: instance types, and instances whose volume's size nobody said."""

    @property
    def before(self) -> Decimal:
        return sum((line.cost_before for line in self.lines), Decimal())

    @property
    def after(self) -> Decimal:
        return sum((line.cost_after for line in self.lines), Decimal())


# Counting

OTHERS = _VOLUMES, _ADDRESSES, _SECRETS = "GiB of volumes", "public IPv4 addresses", "secrets"
"""Everything but instances, of which there is a kind for each type."""

_ADDRESS = "aws:ec2/eip:Eip"
_ADDRESS_OF_INSTANCE = "aws:ec2/eipAssociation:EipAssociation"
_SECRET = "aws:secretsmanager/secret:Secret"


def monthly_cost(prices: Prices, before: Iterable[Resource], after: Iterable[Resource]) -> Cost:
    old, new = _counted(before), _counted(after)
    price_of = {
        **{kind: price * prices.hours_a_month for kind, price in prices.instance_hour.items()},
        _VOLUMES: prices.volume_gib_month,
        _ADDRESSES: prices.public_ipv4_hour * prices.hours_a_month,
        _SECRETS: prices.secret_month,
    }
    kinds = [kind for kind in sorted({*old, *new}, key=_place) if old[kind] or new[kind]]
    return Cost(
        prices.currency,
        [Line(kind, old[kind], new[kind], price_of[kind]) for kind in kinds if kind in price_of],
        [kind for kind in kinds if kind not in price_of],
    )


def _place(kind: str) -> tuple[int, str]:
    """Instance types first."""
    return (OTHERS.index(kind) + 1 if kind in OTHERS else 0, kind)


def _counted(resources: Iterable[Resource]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for resource in resources:
        if resource.type == INSTANCE:
            counts[str(resource.inputs.get("instanceType"))] += 1
            volume = cast(Mapping[str, Any], resource.inputs.get("rootBlockDevice") or {})
            size = volume.get("volumeSize")
            if isinstance(size, int | float):
                counts[_VOLUMES] += int(size)
            else:
                counts[f"the volume of {resource.name}"] += 1
            counts[_ADDRESSES] += resource.inputs.get("associatePublicIpAddress") is True
        elif resource.type == _ADDRESS:
            counts[_ADDRESSES] += 1
        elif resource.type == _ADDRESS_OF_INSTANCE:
            # AWS takes back the address that it gave the instance at its start.
            counts[_ADDRESSES] -= 1
        elif resource.type == _SECRET:
            counts[_SECRETS] += 1
    return counts


# Prices

_PRICES = ("hoursAMonth", "volumeGibMonth", "publicIpv4Hour", "secretMonth")


def read_prices(text: str) -> Prices:
    """Raises `ValueError` that names every key that is wrong."""
    try:
        given = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError("is not a JSON object")
    values = cast(dict[str, Any], given)
    wrong = [
        f"{key}: there is no such key; known are currency, instanceHour, {', '.join(_PRICES)}"
        for key in values
        if key not in ("currency", "instanceHour", *_PRICES)
    ]
    if not re.fullmatch("[A-Z]{3}", str(values.get("currency"))):
        wrong.append(f"currency: {_shown(values, 'currency')}; give its three letters, like USD")
    by_type = values.get("instanceHour")
    if not isinstance(by_type, dict):
        wrong.append(
            f'instanceHour: {_shown(values, "instanceHour")}; give an object, like {{"c5.large": 0.1}}'
        )
        by_type = {}
    types = cast(dict[str, Any], by_type)
    wrong += [
        f"{name}: {_shown(of, key)}; give a number that is not negative"
        for name, of, key in [
            *((key, values, key) for key in _PRICES),
            *((f"instanceHour.{type}", types, type) for type in types),
        ]
        if not (isinstance(of.get(key), Decimal) and of[key].is_finite() and of[key] >= 0)
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
    return Prices(
        values["currency"],
        values["hoursAMonth"],
        types,
        values["volumeGibMonth"],
        values["publicIpv4Hour"],
        values["secretMonth"],
    )


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "is missing"
    value = values[key]
    return f"is {value if isinstance(value, Decimal) else json.dumps(value, default=str)}"
