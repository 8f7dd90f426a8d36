"""What a stack costs a month."""

import json
from decimal import Decimal
from typing import Any

import pytest

from operations.preview.monthly_cost import Cost, Line, monthly_cost, read_prices
from policy.rules import Resource

# Of a month of ten hours, so that all sums are whole.
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


def cost(before: list[Resource], after: list[Resource]) -> Cost:
    return monthly_cost(read_prices(json.dumps(PRICES)), before, after)


def test_instances_volumes_addresses_and_secrets_are_counted_before_and_after() -> None:
    found = cost(BALANCER, [*BALANCER, machine("edge1", "c5.large", 20), machine("edge2", "c5.large")])
    assert found.lines == [
        Line("c5.large", 0, 2, Decimal(20)),
        Line("t3.micro", 1, 1, Decimal(10)),
        Line("GiB of volumes", 10, 40, Decimal(3)),
        # The balancer's own address was given back when it got the Elastic IP.
        Line("public IPv4 addresses", 1, 3, Decimal(40)),
        Line("secrets", 1, 1, Decimal(5)),
    ]
    assert (found.before, found.after, found.without_price) == (85, 295, [])


def test_what_has_no_price_is_named_and_never_taken_for_free() -> None:
    found = cost([machine("edge1", "m7i.large")], [machine("edge1", "c5.large", "[unknown]")])
    assert found.without_price == ["m7i.large", "the volume of edge1"]


def test_prices_are_exact() -> None:
    prices = read_prices(json.dumps({**PRICES, "instanceHour": {"c5.large": 0.1}, "hoursAMonth": 3}))
    assert monthly_cost(prices, [], [machine("edge1", "c5.large")]).lines[0].cost_after == Decimal("0.3")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"currency": "<b>"}, 'currency: is "<b>"; give its three letters, like USD'),
        ({"secretMonth": "0.40"}, 'secretMonth: is "0.40"; give a number that is not negative'),
        ({"hoursAMonth": True}, "hoursAMonth: is true; give a number that is not negative"),
        (
            {"instanceHour": {"c5.large": -1}},
            "instanceHour.c5.large: is -1; give a number that is not negative",
        ),
        ({"instanceHour": 1}, 'instanceHour: is 1; give an object, like {"c5.large": 0.1}'),
        ({"volumeGibMonth": float("nan")}, "volumeGibMonth: is NaN; give a number that is not negative"),
        (
            {"trafficGib": 1},
            "trafficGib: there is no such key; known are currency, instanceHour, hoursAMonth",
        ),
    ],
)
def test_a_wrong_price_is_refused_by_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as refused:
        read_prices(json.dumps({**PRICES, **change}))
    assert str(refused.value).startswith(said)


def test_everything_that_is_wrong_is_said_at_once() -> None:
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
def test_what_is_no_json_object_is_no_price_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (JSON|a JSON object)"):
        read_prices(text)
