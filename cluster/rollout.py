"""The order in which the nodes of a role are created and changed."""

from collections.abc import Collection, Sequence
from math import ceil


def order_changes(nodes: Sequence[str], running: Collection[str]) -> dict[str, list[str]]:
    """Returns the nodes in the order of their changes. Each has a list of the nodes that must serve before it changes.

    New nodes come first, at most a quarter of the role at a time. Viewers may be on nodes that run already, so these
    change one by one, and only while all others serve.
    """
    at_once = ceil(len(nodes) / 4)
    new = [node for node in nodes if node not in running]
    order = {node: [new[index - at_once]] if index >= at_once else [] for index, node in enumerate(new)}
    previous = new
    for node in nodes:
        if node in running:
            order[node] = previous
            previous = [node]
    return order
