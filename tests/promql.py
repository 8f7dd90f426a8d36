"""Reads the alert rules and the dashboard in docs/."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.project import PROJECT

RULES = PROJECT / "docs/prometheus-rules.yml"
DASHBOARD = PROJECT / "docs/grafana-dashboard.json"

# Operators and functions of PromQL that the expressions use.
_WORDS = {"and", "or", "offset", "time", "absent", "vector", "sum", "max", "min", "count", "rate"}


def list_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def list_panels() -> list[dict[str, Any]]:
    """Returns the panels of the dashboard that show data."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def list_queries() -> Iterator[tuple[str, str]]:
    """Yields the title of a panel and an expression, for one cluster of the dashboard."""
    for panel in list_panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$cluster", ".*").replace("$__rate_interval", "1m")


def find_metrics(expression: str) -> set[str]:
    """Returns the names of the metrics in an expression."""
    names = re.sub(
        r"\{[^}]*\}|\[[^]]*\]|\b(by|without|on|ignoring|group_left) *\([^)]*\)|offset \w+", "", expression
    )
    return set(re.findall(r"\b[a-z_]\w*\b", names)) - _WORDS
