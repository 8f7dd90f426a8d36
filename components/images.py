"""Machine images (AMIs): what the settings call them, and which id that is."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class Publisher:
    """Who publishes an image and under which names; see each publisher's documentation."""

    owner: str
    name: str


# Debian: wiki.debian.org/Cloud/AmazonEC2Image. Ant Media: owner id as in its own update scripts.
PUBLISHERS = {
    "debian-13": Publisher("136693071363", "debian-13-amd64-*"),
    "marketplace": Publisher("679593333241", "AntMedia-AWS-Marketplace-EE-*"),
    "ubuntu": Publisher("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"),
}


@dataclass(frozen=True)
class Image:
    """An AMI.

    ``pinned`` says that the user gave its id. An image found by name is the newest when its machine is first made; neither
    a later one nor another name replaces that machine or its image, an id in the settings does.
    """

    id: str
    pinned: bool


def find_image(setting: str) -> Image:
    """The image that a setting (``debian-13``, ``marketplace``, ``ubuntu`` or an AMI id) stands for.

    Raises:
        pulumi.RunError: the region has no image of that name, or it may not be seen from this account.
    """
    if setting.startswith("ami-"):
        return Image(setting, pinned=True)
    publisher = PUBLISHERS[setting]
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
            f"No image '{setting}' (name {publisher.name}, owner {publisher.owner}) is to be seen here: {error}. "
            "Subscribe to it in AWS Marketplace if it is sold there, or set the image to an AMI id of this region."
        ) from error
    return Image(found.id, pinned=False)
