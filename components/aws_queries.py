"""Questions to AWS that have an answer before any resource exists."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import pulumi_aws as aws

from cluster.account import VCPU_QUOTA, Bucket, ElasticIp, Image, InstanceType, Subnet, Volume
from cluster.aws_filters import split_filter_values

T = TypeVar("T")

# How the provider and EC2 say that something does not exist. All other errors are AWS's own: credentials, permissions,
# throttling, network.
_NOT_FOUND = re.compile(
    r"no matching|returned no results|couldn't find resource|empty result|InvalidInstanceType|\.NotFound|\.Malformed",
    re.IGNORECASE,
)

# The states of instances that have their private address.
_EXISTING = ["pending", "running", "shutting-down", "stopping", "stopped"]

# The names of root devices: Debian's and Amazon's images have the first, Ubuntu's the second.
_ROOT_DEVICES = ["/dev/xvda", "/dev/sda1"]


class AwsError(Exception):
    """AWS did not answer. The message is AWS's own."""


@dataclass(frozen=True)
class Publisher:
    """The AWS account that publishes an image, and the pattern of the image's names."""

    owner: str
    name: str
    """With {} in place of the architecture, in Debian's word."""


_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
# Debian: wiki.debian.org/Cloud/AmazonEC2Image. Ant Media: the owner in its own update scripts.
PUBLISHERS = {
    "debian-13": Publisher("136693071363", "debian-13-{}-*"),
    "marketplace": Publisher("679593333241", "AntMedia-AWS-Marketplace-EE-*"),
    "ubuntu": Publisher("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-*"),
}


def find_instance_type(name: str) -> InstanceType | None:
    """Returns an instance type, or `None` if the region does not have it."""
    found = _ask(lambda: aws.ec2.get_instance_type(instance_type=name))
    return found and InstanceType(found.memory_size, found.default_vcpus, found.supported_architectures)


def find_zone_offers(instance_types: Collection[str]) -> dict[str, frozenset[str]]:
    """Returns which of the instance types each availability zone of the region offers, in the order of the zones' names."""
    # In every state: the subnet of a zone that is missing here would be replaced with its machines.
    zones = _require(
        lambda: aws.get_availability_zones(
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


def find_image(name: str, architecture: str) -> Image | None:
    """Looks up an image by its name in the settings: `debian-13`, `marketplace`, `ubuntu` or an AMI id, of any architecture.

    Returns `None` if the region has no such image, or the account may not use it.
    """
    pinned = name.startswith("ami-")
    if pinned:
        found = _ask(
            lambda: aws.ec2.get_ami(
                # DescribeImages hides deprecated images of other owners, also from filters by id.
                filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=[name])],
                include_deprecated=True,
            )
        )
    else:
        publisher = PUBLISHERS[name]
        found = _ask(
            lambda: aws.ec2.get_ami(
                owners=[publisher.owner],
                most_recent=True,
                filters=[
                    aws.ec2.GetAmiFilterArgs(
                        name="name", values=[publisher.name.format(_ARCHITECTURES.get(architecture, "none"))]
                    ),
                    aws.ec2.GetAmiFilterArgs(name="architecture", values=[architecture]),
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
    return Image(found.id, pinned, max(sizes, default=0), found.architecture)


def find_account_id() -> str:
    """Returns the id of the account that the credentials belong to."""
    return _require(aws.get_caller_identity).account_id


def find_region() -> str:
    """Returns the region of the stack."""
    return _require(aws.get_region).region


def find_bucket(name: str) -> Bucket | None:
    """Returns an existing bucket of S3, or `None` if there is none of that name."""
    found = _ask(lambda: aws.s3.get_bucket(bucket=name))
    return found and Bucket(name, found.bucket_region)


def find_hosted_zone(name: str) -> str | None:
    """Returns the id of a public Route 53 hosted zone, or `None` if the account has none of that name."""
    try:
        found = _ask(lambda: aws.route53.get_zone(name=name))
    except AwsError as error:
        if "multiple" in str(error):  # zones of this name
            return None
        raise
    return found and found.zone_id


def find_own_subnets(names: Collection[str], cidrs: Collection[str]) -> list[Subnet]:
    """Returns the subnets that the stack created. `names` are their possible `Name` tags."""
    ids = _require(
        lambda: aws.ec2.get_subnets(
            filters=[
                aws.ec2.GetSubnetsFilterArgs(name="tag:Name", values=sorted(names)),
                aws.ec2.GetSubnetsFilterArgs(name="cidr-block", values=sorted(cidrs)),
            ]
        )
    ).ids
    return [subnet for id in ids if (subnet := find_subnet(id))]


def find_subnet(subnet_id: str) -> Subnet | None:
    """Returns an existing subnet, or `None`."""
    found = _ask(lambda: aws.ec2.get_subnet(id=subnet_id))
    return found and Subnet(
        found.id, found.cidr_block, found.vpc_id, found.availability_zone, found.tags.get("Name", "")
    )


def find_default_route(subnet: Subnet) -> str:
    """Returns where a subnet's default route leads to: `internet`, `nat`, `other`, or empty if it has none.

    `unknown` in a subnet of another account, which shows no route tables.
    """
    table = _ask(lambda: aws.ec2.get_route_table(subnet_id=subnet.id))
    if table is None:  # then AWS uses the main route table
        main = aws.ec2.GetRouteTableFilterArgs(name="association.main", values=["true"])
        table = _ask(lambda: aws.ec2.get_route_table(vpc_id=subnet.vpc_id, filters=[main]))
    if table is None:
        return "unknown"
    route = next((route for route in table.routes if route.cidr_block == "0.0.0.0/0"), None)
    if route is None:
        return ""
    # Behind a NAT gateway, machines reach the internet, but nobody reaches them.
    return "nat" if route.nat_gateway_id else "internet" if route.gateway_id.startswith("igw-") else "other"


def find_used_addresses(
    subnet_ids: Collection[str], addresses: Collection[str], names: Collection[str]
) -> dict[str, str]:
    """Returns who uses which of the addresses in the subnets, apart from the instances with these `Name` tags.

    The user is an instance with its name, or a network interface with its description.
    """
    of_subnets = aws.ec2.GetNetworkInterfacesFilterArgs(name="subnet-id", values=sorted(subnet_ids))
    using = _find_interfaces(of_subnets, "addresses.private-ip-address", addresses)
    if not using:
        return {}
    instances: list[str] = []
    for chunk in split_filter_values(names):
        tagged = aws.ec2.GetInstancesFilterArgs(name="tag:Name", values=chunk)
        instances += _require(
            lambda tagged=tagged: aws.ec2.get_instances(instance_state_names=_EXISTING, filters=[tagged])
        ).ids
    own = _find_interfaces(of_subnets, "attachment.instance-id", instances)
    users: dict[str, str] = {}
    for id in sorted(using - own):
        interface = _require(lambda id=id: aws.ec2.get_network_interface(id=id))
        user = _describe_user(interface)
        users |= {address: user for address in interface.private_ips if address in addresses}
    return users


def _find_interfaces(
    of_subnets: aws.ec2.GetNetworkInterfacesFilterArgs, name: str, values: Collection[str]
) -> set[str]:
    found: set[str] = set()
    for chunk in split_filter_values(values):
        filters = [of_subnets, aws.ec2.GetNetworkInterfacesFilterArgs(name=name, values=chunk)]
        found.update(_require(lambda filters=filters: aws.ec2.get_network_interfaces(filters=filters)).ids)
    return found


def _describe_user(interface: aws.ec2.GetNetworkInterfaceResult) -> str:
    instance_id = next((attachment.instance_id for attachment in interface.attachments), "")
    if not instance_id:
        return f"{interface.id} ({interface.description})" if interface.description else interface.id
    instance = _require(lambda: aws.ec2.get_instance(instance_id=instance_id))
    name = instance.tags.get("Name", "")
    return f"{name} ({instance_id})" if name else instance_id


def find_stopped_instances(prefix: str) -> dict[str, str]:
    """Returns the ids of stopped instances by their `Name` tag, for tags that begin with `prefix`."""
    found = [
        _require(lambda instance_id=instance_id: aws.ec2.get_instance(instance_id=instance_id))
        for instance_id in _find_instances(f"{prefix}*", "stopping", "stopped").ids
    ]
    return {instance.tags["Name"]: instance.id for instance in found}


def find_instance_addresses(name_pattern: str, architecture: str | None = None) -> frozenset[str]:
    """Returns the private addresses of running instances whose `Name` tag matches `name_pattern`, of one architecture or of all."""
    return frozenset(
        _find_instances(name_pattern, "pending", "running", architecture=architecture).private_ips
    )


def _find_instances(
    name_pattern: str, *states: str, architecture: str | None = None
) -> aws.ec2.GetInstancesResult:
    # A cluster may have more machines than a filter takes values.
    filters = [aws.ec2.GetInstancesFilterArgs(name="tag:Name", values=[name_pattern])]
    if architecture:
        filters.append(aws.ec2.GetInstancesFilterArgs(name="architecture", values=[architecture]))
    return _require(lambda: aws.ec2.get_instances(instance_state_names=list(states), filters=filters))


def find_other_volumes(groups: Collection[Collection[str]], gib: int) -> list[Volume]:
    """Returns root volumes of another size: of each group of machines one volume of each size.

    A group has the `Name` tags of its machines.
    """
    names = [name for group in groups for name in group]
    others = _find_volumes(names)
    if others:
        others -= _find_volumes(names, gib)
    found: list[Volume] = []
    while others:
        of_id = aws.ebs.GetVolumeFilterArgs(name="volume-id", values=[min(others)])
        volume = _require(lambda of_id=of_id: aws.ebs.get_volume(filters=[of_id]))
        found.append(Volume(volume.tags["Name"], volume.size))
        group = next(group for group in groups if found[-1].name in group)
        others -= {volume.volume_id, *_find_volumes(group, volume.size)}
    return found


def _find_volumes(names: Collection[str], gib: int | None = None) -> set[str]:
    """Returns the ids of the root volumes of instances with these `Name` tags, of one size or of all."""
    filters = [aws.ebs.GetEbsVolumesFilterArgs(name="attachment.device", values=_ROOT_DEVICES)]
    if gib:
        filters.append(aws.ebs.GetEbsVolumesFilterArgs(name="size", values=[str(gib)]))
    found: set[str] = set()
    for chunk in split_filter_values(names):
        tagged = aws.ebs.GetEbsVolumesFilterArgs(name="tag:Name", values=chunk)
        found.update(_require(lambda tagged=tagged: aws.ebs.get_ebs_volumes(filters=[*filters, tagged])).ids)
    return found


def find_public_ip(name: str) -> str | None:
    """Returns the address of the Elastic IP with this `Name` tag, or `None`."""
    found = _require(
        lambda: aws.ec2.get_eips(filters=[aws.ec2.GetEipsFilterArgs(name="tag:Name", values=[name])])
    )
    return found.public_ips[0] if found.public_ips else None


def find_elastic_ip(allocation_id: str) -> ElasticIp | None:
    """Returns an Elastic IP that exists, or `None`."""
    found = _ask(lambda: aws.ec2.get_elastic_ip(id=allocation_id))
    if found is None:
        return None
    user = found.instance_id or found.network_interface_id
    if found.instance_id:
        instance = _require(lambda: aws.ec2.get_instance(instance_id=found.instance_id))
        user = instance.tags.get("Name", user)
    return ElasticIp(found.public_ip, found.tags.get("Name", ""), user)


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
        # The provider puts the reason behind "invoking TOKEN: 1 error occurred:\n\t* ".
        raise AwsError(str(error).rpartition("\n\t* ")[2].strip()) from error


def _require(query: Callable[[], T]) -> T:
    answer = _ask(query)
    if answer is None:
        raise AwsError("AWS returned no answer")
    return answer
