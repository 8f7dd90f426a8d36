"""What AWS offers: instance types, machine images and the hosted zone. Read before any resource is created."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class InstanceType:
    memory_mib: int


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


@dataclass(frozen=True)
class Image:
    """An AMI.

    ``pinned`` is true if the settings give its id. An image found by name is the newest one when its machine is first
    created. A newer image or another name does not replace that machine; an id in the settings does.
    """

    id: str
    pinned: bool


def find_instance_types(types: Mapping[str, str]) -> dict[str, InstanceType]:
    """Looks up the instance types of the settings (setting -> type) and returns them by setting.

    Raises:
        pulumi.RunError: Types that the region lacks or that are not x86_64, one line each.
    """
    found: dict[str, InstanceType] = {}
    problems: list[str] = []
    for setting, name in types.items():
        try:
            answer = aws.ec2.get_instance_type(instance_type=name)
        except Exception as error:
            problems.append(
                f'ant-media-cluster:{setting} is "{name}": {error}; give a type that this region has'
            )
            continue
        if "x86_64" not in answer.supported_architectures:
            problems.append(
                f'ant-media-cluster:{setting} is "{name}", whose processor is {", ".join(answer.supported_architectures)}: '
                "give one of x86_64, as the images are"
            )
        found[setting] = InstanceType(answer.memory_size)
    if problems:
        raise pulumi.RunError("\n".join(problems))
    return found


def find_images(names: Iterable[str]) -> dict[str, Image]:
    """Looks up images by their names in the settings: ``debian-13``, ``marketplace``, ``ubuntu`` or an AMI id.

    Raises:
        pulumi.RunError: The region has no such image, or the account may not use it.
    """
    return {name: _find_image(name) for name in dict.fromkeys(names)}


def _find_image(name: str) -> Image:
    if name.startswith("ami-"):
        return Image(name, pinned=True)
    publisher = PUBLISHERS[name]
    try:
        found = aws.ec2.get_ami(
            owners=[publisher.owner],
            most_recent=True,
            filters=[
                aws.ec2.GetAmiFilterArgs(name="name", values=[publisher.name]),
                aws.ec2.GetAmiFilterArgs(name="architecture", values=["x86_64"]),
            ],
        )
    except Exception as error:
        raise pulumi.RunError(
            f"Image '{name}' (name {publisher.name}, owner {publisher.owner}) was not found: {error}. "
            "Subscribe to it in AWS Marketplace if it is sold there, or set the image to an AMI id of this region."
        ) from error
    return Image(found.id, pinned=False)


def find_zone(name: str | None) -> str | None:
    """Returns the id of a Route 53 hosted zone; ``None`` if the settings name none.

    Raises:
        pulumi.RunError: The account has no such zone.
    """
    if name is None:
        return None
    try:
        return aws.route53.get_zone(name=name).zone_id
    except Exception as error:
        raise pulumi.RunError(
            f'ant-media-cluster:route53Zone is "{name}": {error}; give a hosted zone of this account'
        ) from error
