"""Questions to AWS that have an answer before any resource exists."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import pulumi_aws as aws

from cluster.account import Image, InstanceType, Subnet

T = TypeVar("T")

# How the provider and EC2 say that something does not exist. All other errors are AWS's own: credentials, permissions,
# throttling, network.
_NOT_FOUND = re.compile(
    r"no matching|returned no results|couldn't find resource|empty result|InvalidInstanceType|\.NotFound|\.Malformed",
    re.IGNORECASE,
)

# Service Quotas: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPUs.
VCPU_QUOTA = "L-1216C47A"


class AwsError(Exception):
    """AWS did not answer. The message is AWS's own."""


@dataclass(frozen=True)
class Publisher:
    """The AWS account that publishes an image, and the pattern of the image's names."""

    owner: str
    name: str


# Debian: wiki.debian.org/Cloud/AmazonEC2Image. Ant Media: the owner in its own update scripts.
PUBLISHERS = {
    "debian-13": Publisher("136693071363", "debian-13-amd64-*"),
    "marketplace": Publisher("679593333241", "AntMedia-AWS-Marketplace-EE-*"),
    "ubuntu": Publisher("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"),
}


def find_instance_type(name: str) -> InstanceType | None:
    """Returns an instance type, or `None` if the region does not have it."""
    found = _ask(lambda: aws.ec2.get_instance_type(instance_type=name))
    return found and InstanceType(found.memory_size, found.default_vcpus, found.supported_architectures)


def find_zone_offers(instance_types: Collection[str]) -> dict[str, frozenset[str]]:
    """Returns which of the instance types each availability zone of the region offers, in the order of the zones' names."""
    zones = _require(
        lambda: aws.get_availability_zones(
            state="available",
            # Local zones lack most instance types.
            filters=[aws.GetAvailabilityZonesFilterArgs(name="zone-type", values=["availability-zone"])],
        )
    ).names
    if not instance_types:
        return dict.fromkeys(sorted(zones), frozenset[str]())
    types = aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=sorted(instance_types))
    offers = _require(
        lambda: aws.ec2.get_instance_type_offerings(location_type="availability-zone", filters=[types])
    )
    pairs = set(zip(offers.locations, offers.instance_types, strict=True))
    return {
        zone: frozenset(name for name in instance_types if (zone, name) in pairs) for zone in sorted(zones)
    }


def find_image(name: str) -> Image | None:
    """Looks up an image by its name in the settings: `debian-13`, `marketplace`, `ubuntu` or an AMI id.

    Returns `None` if the region has no such image, or the account may not use it.
    """
    pinned = name.startswith("ami-")
    if pinned:
        found = _ask(
            lambda: aws.ec2.get_ami(filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=[name])])
        )
    else:
        publisher = PUBLISHERS[name]
        found = _ask(
            lambda: aws.ec2.get_ami(
                owners=[publisher.owner],
                most_recent=True,
                filters=[
                    aws.ec2.GetAmiFilterArgs(name="name", values=[publisher.name]),
                    aws.ec2.GetAmiFilterArgs(name="architecture", values=["x86_64"]),
                ],
            )
        )
    if found is None:
        return None
    sizes = [
        int(mapping.ebs.get("volume_size", 0))
        for mapping in found.block_device_mappings
        if mapping.device_name == found.root_device_name
    ]
    return Image(found.id, pinned, max(sizes, default=0))


def find_hosted_zone(name: str) -> str | None:
    """Returns the id of a public Route 53 hosted zone, or `None` if the account has none of that name."""
    found = _ask(lambda: aws.route53.get_zone(name=name))
    return found and found.zone_id


def find_subnet_zones(names: Collection[str], cidrs: Collection[str]) -> dict[str, str]:
    """Returns the availability zones of the stack's subnets by CIDR. `names` are their possible `Name` tags."""
    ids = _require(
        lambda: aws.ec2.get_subnets(
            filters=[
                aws.ec2.GetSubnetsFilterArgs(name="tag:Name", values=sorted(names)),
                aws.ec2.GetSubnetsFilterArgs(name="cidr-block", values=sorted(cidrs)),
            ]
        )
    ).ids
    subnets = [_require(lambda subnet_id=subnet_id: aws.ec2.get_subnet(id=subnet_id)) for subnet_id in ids]
    return {subnet.cidr_block: subnet.availability_zone for subnet in subnets}


def find_subnet(subnet_id: str) -> Subnet | None:
    """Returns an existing subnet, or `None`."""
    found = _ask(lambda: aws.ec2.get_subnet(id=subnet_id))
    return found and Subnet(found.cidr_block, found.vpc_id, found.availability_zone)


def find_stopped_instances(prefix: str) -> dict[str, str]:
    """Returns the ids of stopped instances by their `Name` tag, for tags that begin with `prefix`."""
    found = [
        _require(lambda instance_id=instance_id: aws.ec2.get_instance(instance_id=instance_id))
        for instance_id in _find_instances(prefix, "stopping", "stopped").ids
    ]
    return {instance.tags["Name"]: instance.id for instance in found}


def find_instance_addresses(prefix: str) -> frozenset[str]:
    """Returns the private addresses of running instances whose `Name` tag begins with `prefix`."""
    return frozenset(_find_instances(prefix, "pending", "running").private_ips)


def _find_instances(prefix: str, *states: str) -> aws.ec2.GetInstancesResult:
    # A filter takes 200 values at most, and a cluster may have more machines.
    names = aws.ec2.GetInstancesFilterArgs(name="tag:Name", values=[f"{prefix}*"])
    return _require(lambda: aws.ec2.get_instances(instance_state_names=list(states), filters=[names]))


def find_elastic_ip(name: str) -> str | None:
    """Returns the address of the Elastic IP with a `Name` tag, or `None`."""
    found = _require(
        lambda: aws.ec2.get_eips(filters=[aws.ec2.GetEipsFilterArgs(name="tag:Name", values=[name])])
    )
    return found.public_ips[0] if found.public_ips else None


def find_vcpu_quota() -> int:
    """Returns how many vCPUs of standard on-demand instances the account may run in this region."""
    quota = _require(lambda: aws.servicequotas.get_service_quota(service_code="ec2", quota_code=VCPU_QUOTA))
    return int(quota.value)


def _ask(query: Callable[[], T]) -> T | None:
    try:
        return query()
    except Exception as error:
        if _NOT_FOUND.search(str(error)):
            return None
        raise AwsError(str(error)) from error


def _require(query: Callable[[], T]) -> T:
    answer = _ask(query)
    if answer is None:
        raise AwsError("AWS returned no answer")
    return answer
