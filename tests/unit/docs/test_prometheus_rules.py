"""Checks that the alert rules in docs/ use only metrics that the load balancer exports."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.project import PROJECT

SCRIPT = (PROJECT / "templates/scripts/balancer/record-certificate.sh").read_text()

OWN_METRICS = set(re.findall(r"gauge (\w+) ", SCRIPT))
STANDARD_METRICS = {"up", "node_systemd_unit_state", "node_systemd_timer_last_trigger_seconds"}

# Operators and functions of PromQL that the rules use.
PROMQL_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "time", "absent", "sum"}


def rules() -> Iterator[dict[str, Any]]:
    content = yaml.safe_load((PROJECT / "docs/prometheus-rules.yml").read_text())
    for group in content["groups"]:
        yield from group["rules"]


def metrics(expression: str) -> set[str]:
    """Returns the metric names in an expression."""
    without_labels = re.sub(r"\{[^}]*\}|\b(by|without|on|ignoring) *\([^)]*\)", "", expression)
    return set(re.findall(r"\b[a-z_]\w*\b", without_labels)) - PROMQL_WORDS


def test_every_metric_is_exported() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set[str]().union(*(metrics(rule["expr"]) for rule in rules()))
    assert used - recorded - STANDARD_METRICS == OWN_METRICS
    assert used <= recorded | STANDARD_METRICS | OWN_METRICS


def test_every_alert_has_severity_summary_and_description() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) == 5
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description"}
