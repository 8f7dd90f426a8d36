"""The expiry of test clusters, read from the state of their stacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cluster.settings.stack_checks import parse_expiry, read_tags
from operations.table import format_table

_PROVIDER = "pulumi:providers:aws"


@dataclass(frozen=True)
class Cluster:
    """A stack with an expiry."""

    name: str
    owner: str
    expiry: datetime
    resources: int


def read_cluster(name: str, deployment: Mapping[str, Any]) -> Cluster | None:
    """Reads a test cluster from the deployment that `pulumi stack export` prints. None for a stack without expiry."""
    resources: Sequence[Mapping[str, Any]] = deployment.get("resources") or []
    default_tags = [
        resource.get("inputs", {}).get("defaultTags")
        for resource in resources
        if resource["type"] == _PROVIDER
    ]
    # There are two providers while an update changes the provider's version. The later expiry is the newer one.
    expiries = [
        (expiry, str(tags.get("owner", "-")))
        for tags in map(read_tags, default_tags)
        if (expiry := parse_expiry(tags.get("expiry")))
    ]
    if not expiries:
        return None
    expiry, owner = max(expiries)
    cloud_resources = [r for r in resources if r.get("custom") and not r["type"].startswith("pulumi:")]
    return Cluster(name, owner, expiry, len(cloud_resources))


def format_clusters(clusters: Sequence[Cluster], now: datetime) -> str:
    """Returns a table, ordered by expiry."""
    rows = [
        (cluster.name, cluster.owner, format_expiry(cluster.expiry, now), str(cluster.resources))
        for cluster in sorted(clusters, key=lambda cluster: (cluster.expiry, cluster.name))
    ]
    return format_table([("NAME", "OWNER", "EXPIRES", "RESOURCES"), *rows])


def format_expiry(expiry: datetime, now: datetime) -> str:
    return f"in {_format_duration(expiry - now)}" if expiry > now else f"{_format_duration(now - expiry)} ago"


def _format_duration(duration: timedelta) -> str:
    """Returns a duration in its two largest units."""
    minutes = int(duration.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
