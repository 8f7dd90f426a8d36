"""The order in which the nodes of a role are created and changed."""

from collections.abc import Collection, Sequence


def order_changes(nodes: Sequence[str], running: Collection[str]) -> dict[str, list[str]]:
    """Returns the nodes in the order of their changes. Each has a list of the nodes that must serve before it changes.

    New nodes come first, all at once: nobody is on them. Viewers may be on nodes that run already, so these change one by
    one, and only while all others serve.
    """
    new = [node for node in nodes if node not in running]
    order: dict[str, list[str]] = {node: [] for node in new}
    previous = new
    for node in nodes:
        if node in running:
            order[node] = previous
            previous = [node]
    return order
