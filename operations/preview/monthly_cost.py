"""Estimates the monthly cost of a stack from a price list of the user. Traffic is not included: it is not known beforehand."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from operations.resources import INSTANCE
from policy.resource import Resource


@dataclass(frozen=True)
class Prices:
    currency: str
    hours_a_month: Decimal
    instance_hour: Mapping[str, Decimal]
    """Hourly price by instance type."""
    volume_gib_month: Decimal
    public_ipv4_hour: Decimal
    secret_month: Decimal


@dataclass(frozen=True)
class CostLine:
    kind: str
    """An instance type, or one of `OTHER_KINDS`."""
    before: int
    """Count before the update."""
    after: int
    price: Decimal
    """Monthly price of one."""

    @property
    def cost_before(self) -> Decimal:
        return self.before * self.price

    @property
    def cost_after(self) -> Decimal:
        return self.after * self.price


@dataclass(frozen=True)
class Cost:
    currency: str
    lines: Sequence[CostLine]
    without_price: Sequence[str]
    """What the sums leave out: instance types without a price and volumes of unknown size."""

    @property
    def before(self) -> Decimal:
        return sum((line.cost_before for line in self.lines), Decimal())

    @property
    def after(self) -> Decimal:
        return sum((line.cost_after for line in self.lines), Decimal())


OTHER_KINDS = _VOLUMES, _ADDRESSES, _SECRETS = "GiB of volumes", "public IPv4 addresses", "secrets"
"""Kinds of cost other than instances."""

_ADDRESS = "aws:ec2/eip:Eip"
_ADDRESS_ASSOCIATION = "aws:ec2/eipAssociation:EipAssociation"
_SECRET = "aws:secretsmanager/secret:Secret"


def monthly_cost(prices: Prices, before: Iterable[Resource], after: Iterable[Resource]) -> Cost:
    """Returns the cost of the resources before and after an update."""
    old, new = _count(before), _count(after)
    prices_by_kind = {
        **{kind: price * prices.hours_a_month for kind, price in prices.instance_hour.items()},
        _VOLUMES: prices.volume_gib_month,
        _ADDRESSES: prices.public_ipv4_hour * prices.hours_a_month,
        _SECRETS: prices.secret_month,
    }
    kinds = [kind for kind in sorted({*old, *new}, key=_sort_key) if old[kind] or new[kind]]
    return Cost(
        prices.currency,
        [
            CostLine(kind, old[kind], new[kind], prices_by_kind[kind])
            for kind in kinds
            if kind in prices_by_kind
        ],
        [kind for kind in kinds if kind not in prices_by_kind],
    )


def _sort_key(kind: str) -> tuple[int, str]:
    """Sorts instance types before the other kinds."""
    return (OTHER_KINDS.index(kind) + 1 if kind in OTHER_KINDS else 0, kind)


def _count(resources: Iterable[Resource]) -> Counter[str]:
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
        elif resource.type == _ADDRESS_ASSOCIATION:
            # AWS releases the instance's own public address when an Elastic IP is associated.
            counts[_ADDRESSES] -= 1
        elif resource.type == _SECRET:
            counts[_SECRETS] += 1
    return counts


_PRICE_KEYS = ("hoursAMonth", "volumeGibMonth", "publicIpv4Hour", "secretMonth")


def read_prices(text: str) -> Prices:
    """Parses a price list. Raises `ValueError` with one line for each invalid key."""
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    values = cast(dict[str, Any], document)
    errors = [
        f"{key}: unknown key; the keys are currency, instanceHour, {', '.join(_PRICE_KEYS)}"
        for key in values
        if key not in ("currency", "instanceHour", *_PRICE_KEYS)
    ]
    if not re.fullmatch("[A-Z]{3}", str(values.get("currency"))):
        errors.append(
            f"currency: {_describe_value(values, 'currency')}; give a three-letter code such as USD"
        )
    instance_prices = values.get("instanceHour")
    if not isinstance(instance_prices, dict):
        errors.append(
            f'instanceHour: {_describe_value(values, "instanceHour")}; give an object such as {{"c5.large": 0.1}}'
        )
        instance_prices = {}
    types = cast(dict[str, Any], instance_prices)
    errors += [
        f"{name}: {_describe_value(of, key)}; give a number of at least 0"
        for name, of, key in [
            *((key, values, key) for key in _PRICE_KEYS),
            *((f"instanceHour.{type}", types, type) for type in types),
        ]
        if not (isinstance(of.get(key), Decimal) and of[key].is_finite() and of[key] >= 0)
    ]
    if errors:
        raise ValueError("\n".join(errors))
    return Prices(
        values["currency"],
        values["hoursAMonth"],
        types,
        values["volumeGibMonth"],
        values["publicIpv4Hour"],
        values["secretMonth"],
    )


def _describe_value(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "is missing"
    value = values[key]
    return f"is {value if isinstance(value, Decimal) else json.dumps(value, default=str)}"
