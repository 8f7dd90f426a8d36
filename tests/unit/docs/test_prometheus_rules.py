"""The alert rules in docs/ ask for nothing that the load balancer does not tell."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.project import PROJECT

SCRIPT = (PROJECT / "templates/scripts/balancer/record-certificate.sh").read_text()

RECORDED = set(re.findall(r"gauge (\w+) ", SCRIPT))
OF_PROMETHEUS_AND_NODE_EXPORTER = {"up", "node_systemd_unit_state", "node_systemd_timer_last_trigger_seconds"}

# What may stand in an expression beside metrics.
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "time", "absent", "sum"}


def rules() -> Iterator[dict[str, Any]]:
    content = yaml.safe_load((PROJECT / "docs/prometheus-rules.yml").read_text())
    for group in content["groups"]:
        yield from group["rules"]


def metrics(expression: str) -> set[str]:
    """The names in an expression that are neither PromQL's nor labels."""
    without_labels = re.sub(r"\{[^}]*\}|\b(by|without|on|ignoring) *\([^)]*\)", "", expression)
    return set(re.findall(r"\b[a-z_]\w*\b", without_labels)) - WORDS


def test_every_metric_is_one_that_the_load_balancer_has() -> None:
    own = {rule["record"] for rule in rules() if "record" in rule}
    asked_for = set[str]().union(*(metrics(rule["expr"]) for rule in rules()))
    assert asked_for - own - OF_PROMETHEUS_AND_NODE_EXPORTER == RECORDED
    assert asked_for <= own | OF_PROMETHEUS_AND_NODE_EXPORTER | RECORDED


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) == 5
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}
