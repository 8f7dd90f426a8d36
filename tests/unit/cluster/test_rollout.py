"""Order of changes within a role."""

from itertools import pairwise

import pytest

from cluster.rollout import order_changes

NODES = [f"edge{number}" for number in range(1, 9)]


@pytest.mark.parametrize("running", [NODES, NODES[2:], ["edge5"], []])
def test_running_nodes_change_one_by_one_and_only_while_all_others_serve(running: list[str]) -> None:
    order = order_changes(NODES, running)
    complete: dict[str, set[str]] = {}
    for node, previous in order.items():
        complete[node] = {node}.union(*(complete[other] for other in previous))
    for first, second in pairwise(running):
        assert first in complete[second]
    for node in running:
        # Also a node that an interrupted update deleted serves again before the next one leaves.
        assert {*NODES} - {*running} <= complete[node]


def test_new_nodes_are_created_at_once() -> None:
    assert order_changes(NODES, []) == {node: [] for node in NODES}
    assert order_changes(NODES, ["edge1"]) == {node: [] for node in NODES[1:]} | {"edge1": NODES[1:]}


def test_new_nodes_do_not_wait_for_running_ones() -> None:
    assert order_changes(["edge1", "edge2", "edge3"], ["edge1", "edge2"]) == {
        "edge3": [],
        "edge1": ["edge3"],
        "edge2": ["edge1"],
    }
