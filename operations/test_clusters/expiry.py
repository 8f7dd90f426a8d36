"""When test clusters expire, as the engine's state of their stacks says: it needs no file of the checkout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cluster.settings.stack_checks import parse_expiry, read_tags

_PROVIDER = "pulumi:providers:aws"


@dataclass(frozen=True)
class Cluster:
    """A stack that carries an expiry."""

    name: str
    owner: str
    expiry: datetime
    resources: int


def read_cluster(name: str, deployment: Mapping[str, Any]) -> Cluster | None:
    """The test cluster, from what `pulumi stack export` says; None for a stack without expiry."""
    resources: Sequence[Mapping[str, Any]] = deployment.get("resources") or []
    given = [
        resource.get("inputs", {}).get("defaultTags")
        for resource in resources
        if resource["type"] == _PROVIDER
    ]
    # While an update changes the provider's version there are two; the later expiry is the newer one.
    found = [
        (expiry, str(tags.get("owner", "-")))
        for tags in map(read_tags, given)
        if (expiry := parse_expiry(tags.get("expiry")))
    ]
    if not found:
        return None
    expiry, owner = max(found)
    made = [r for r in resources if r.get("custom") and not r["type"].startswith("pulumi:")]
    return Cluster(name, owner, expiry, len(made))


def table(clusters: Sequence[Cluster], now: datetime) -> str:
    """The first to expire first."""
    rows = [("NAME", "OWNER", "EXPIRES", "RESOURCES")] + [
        (cluster.name, cluster.owner, say_when(cluster.expiry, now), str(cluster.resources))
        for cluster in sorted(clusters, key=lambda cluster: (cluster.expiry, cluster.name))
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def say_when(expiry: datetime, now: datetime) -> str:
    return f"in {_roughly(expiry - now)}" if expiry > now else f"{_roughly(now - expiry)} ago"


def _roughly(time: timedelta) -> str:
    """In its two largest units."""
    minutes = int(time.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
