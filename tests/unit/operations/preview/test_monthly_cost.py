"""The monthly cost of a stack and the price list."""

import json
from decimal import Decimal
from typing import Any

import pytest

from operations.preview.monthly_cost import Cost, CostLine, monthly_cost, read_prices
from policy.resource import Resource

# A month of ten hours keeps all sums whole.
PRICES: dict[str, Any] = {
    "currency": "EUR",
    "hoursAMonth": 10,
    "instanceHour": {"c5.large": 2, "t3.micro": 1},
    "volumeGibMonth": 3,
    "publicIpv4Hour": 4,
    "secretMonth": 5,
}


def machine(name: str, type: str, volume: Any = 10) -> Resource:
    inputs = {
        "instanceType": type,
        "rootBlockDevice": {"volumeSize": volume},
        "associatePublicIpAddress": True,
    }
    return Resource("aws:ec2/instance:Instance", name, inputs)


BALANCER = [
    machine("load-balancer", "t3.micro"),
    Resource("aws:ec2/eip:Eip", "load-balancer-ip", {}),
    Resource("aws:ec2/eipAssociation:EipAssociation", "load-balancer-ip", {"instanceId": "[unknown]"}),
    Resource("aws:secretsmanager/secret:Secret", "certificate", {}),
]


def estimate_cost(before: list[Resource], after: list[Resource]) -> Cost:
    return monthly_cost(read_prices(json.dumps(PRICES)), before, after)


def test_instances_volumes_addresses_and_secrets_are_counted_before_and_after() -> None:
    estimate = estimate_cost(
        BALANCER, [*BALANCER, machine("edge1", "c5.large", 20), machine("edge2", "c5.large")]
    )
    assert estimate.lines == [
        CostLine("c5.large", 0, 2, Decimal(20)),
        CostLine("t3.micro", 1, 1, Decimal(10)),
        CostLine("GiB of volumes", 10, 40, Decimal(3)),
        # AWS released the load balancer's own address when it got the Elastic IP.
        CostLine("public IPv4 addresses", 1, 3, Decimal(40)),
        CostLine("secrets", 1, 1, Decimal(5)),
    ]
    assert (estimate.before, estimate.after, estimate.without_price) == (85, 295, [])


def test_kind_without_price_is_named_and_not_free() -> None:
    estimate = estimate_cost([machine("edge1", "m7i.large")], [machine("edge1", "c5.large", "[unknown]")])
    assert estimate.without_price == ["m7i.large", "the volume of edge1"]


def test_prices_are_exact() -> None:
    prices = read_prices(json.dumps({**PRICES, "instanceHour": {"c5.large": 0.1}, "hoursAMonth": 3}))
    assert monthly_cost(prices, [], [machine("edge1", "c5.large")]).lines[0].cost_after == Decimal("0.3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"currency": "<b>"}, 'currency: is "<b>"; give a three-letter code such as USD'),
        ({"secretMonth": "0.40"}, 'secretMonth: is "0.40"; give a number of at least 0'),
        ({"hoursAMonth": True}, "hoursAMonth: is true; give a number of at least 0"),
        (
            {"instanceHour": {"c5.large": -1}},
            "instanceHour.c5.large: is -1; give a number of at least 0",
        ),
        ({"instanceHour": 1}, 'instanceHour: is 1; give an object such as {"c5.large": 0.1}'),
        ({"volumeGibMonth": float("nan")}, "volumeGibMonth: is NaN; give a number of at least 0"),
        (
            {"trafficGib": 1},
            "trafficGib: unknown key; the keys are currency, instanceHour, hoursAMonth",
        ),
    ],
)
def test_invalid_price_is_refused_with_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as refused:
        read_prices(json.dumps({**PRICES, **change}))
    assert str(refused.value).startswith(message)


def test_all_invalid_keys_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match="currency: is missing") as refused:
        read_prices("{}")
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        "currency",
        "instanceHour",
        "hoursAMonth",
        "volumeGibMonth",
        "publicIpv4Hour",
        "secretMonth",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{,}"])
def test_price_list_must_be_a_json_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (JSON|a JSON object)"):
        read_prices(text)
