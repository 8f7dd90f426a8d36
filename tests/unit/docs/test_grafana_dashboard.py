"""Checks the structure of the dashboard in docs/. tests/integration/monitoring checks its queries."""

import json
from itertools import combinations
from typing import Any

from tests.promql import DASHBOARD, list_panels

ALL_PANELS: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in ALL_PANELS}) == len(ALL_PANELS)
    for one, other in combinations(ALL_PANELS, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_panels_show_the_selected_cluster_of_the_selected_prometheus() -> None:
    for panel in list_panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'cluster=~"$cluster"' in target["expr"], panel["title"]
