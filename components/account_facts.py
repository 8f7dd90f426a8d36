"""What components need to know of the AWS account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.account import ElasticIp, Image, RecordingsPlan


@dataclass(frozen=True)
class EntryFacts:
    """What the account has for the cluster's public entry point."""

    hosted_zone_id: str | None
    elastic_ip: ElasticIp | None
    """The user's own."""


@dataclass(frozen=True)
class AccountFacts:
    """What components need to know of the account."""

    images: Mapping[str, Image]
    """By the names of the machines."""
    replaced: frozenset[str]
    """Names of the running machines that another architecture or another kind of subnet replaces."""
    zones: Sequence[str]
    """Availability zones of the VPC's subnets."""
    vpc_id: str | None
    """The VPC of existing subnets."""
    entry: EntryFacts
    memory_mib: int
    """Memory of the load balancer."""
    running: frozenset[str]
    """Names of the planned machines that run already."""
    uploads: RecordingsPlan | None
    """Where recordings are uploaded to. None if they stay on the nodes."""

    @property
    def outputs(self) -> dict[str, str]:
        """Stack outputs by name."""
        return {"recordings_bucket": self.uploads.bucket.name} if self.uploads else {}
