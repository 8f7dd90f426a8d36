"""The functions (Terraform's data sources) that the program calls."""

from collections.abc import Callable, Mapping
from typing import Any

from sandbox.plugins.aws.client import AwsClient, get_tags, translate_errors
from sandbox.plugins.aws.network import subnet_properties
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import ProviderError

NOTHING = "Your query returned no results. Please change your search criteria and try again."
TOO_MANY = "Your query returned more than one result. Please try a more specific search criteria"


def _filters(arguments: Properties) -> list[dict[str, Any]]:
    filters = arguments.get("filters")
    return [
        {"Name": entry["name"], "Values": entry["values"]}
        for entry in (filters if isinstance(filters, list) else [])
        if isinstance(entry, dict)
    ]


def _get_ami(client: AwsClient, arguments: Properties) -> Properties:
    request = {"Owners": arguments["owners"]} if "owners" in arguments else {}
    with translate_errors("reading EC2 AMIs"):
        images = client.ec2.describe_images(Filters=_filters(arguments), **request)["Images"]
    if not images:
        raise ProviderError(NOTHING)
    if len(images) > 1 and not arguments.get("mostRecent"):
        raise ProviderError(f"{TOO_MANY}, or set `most_recent` attribute to true.")
    image = max(images, key=lambda candidate: str(candidate.get("CreationDate", "")))
    return {
        "architecture": image.get("Architecture", ""),
        "arn": f"arn:aws:ec2:{client.region}::image/{image['ImageId']}",
        "creationDate": image.get("CreationDate", ""),
        "description": image.get("Description", ""),
        "hypervisor": image.get("Hypervisor", ""),
        "id": image["ImageId"],
        "imageId": image["ImageId"],
        "imageLocation": image.get("ImageLocation", ""),
        "imageType": image.get("ImageType", ""),
        "name": image.get("Name", ""),
        "ownerId": image.get("OwnerId", ""),
        "platform": image.get("Platform", ""),
        "public": image.get("Public", False),
        "rootDeviceName": image.get("RootDeviceName", ""),
        "rootDeviceType": image.get("RootDeviceType", ""),
        "state": image.get("State", ""),
        "tags": get_tags(image),
        "virtualizationType": image.get("VirtualizationType", ""),
    }


def _get_subnet(client: AwsClient, arguments: Properties) -> Properties:
    request = {"SubnetIds": [arguments["id"]]} if "id" in arguments else {}
    with translate_errors("reading EC2 Subnet"):
        subnets = client.ec2.describe_subnets(Filters=_filters(arguments), **request)["Subnets"]
    if len(subnets) != 1:
        found = "no matching EC2 Subnet found" if not subnets else "multiple EC2 Subnets matched"
        raise ProviderError(f"{found}; use additional constraints to reduce matches to a single EC2 Subnet")
    subnet = subnets[0]
    return {
        **subnet_properties(subnet),
        "availableIpAddressCount": subnet["AvailableIpAddressCount"],
        "defaultForAz": subnet["DefaultForAz"],
        "id": subnet["SubnetId"],
        "state": subnet["State"],
    }


def _get_instance_type(client: AwsClient, arguments: Properties) -> Properties:
    name = arguments["instanceType"]
    with translate_errors(f"reading EC2 Instance Type ({name})"):
        instance_types = client.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    if not instance_types:
        raise ProviderError(f"reading EC2 Instance Type ({name}): couldn't find resource")
    instance_type = instance_types[0]
    return {
        "burstablePerformanceSupported": instance_type["BurstablePerformanceSupported"],
        "currentGeneration": instance_type["CurrentGeneration"],
        "defaultCores": instance_type["VCpuInfo"].get("DefaultCores", 0),
        "defaultVcpus": instance_type["VCpuInfo"]["DefaultVCpus"],
        "hypervisor": instance_type.get("Hypervisor", ""),
        "id": instance_type["InstanceType"],
        "instanceType": instance_type["InstanceType"],
        "memorySize": instance_type["MemoryInfo"]["SizeInMiB"],
        "networkPerformance": instance_type["NetworkInfo"]["NetworkPerformance"],
        "supportedArchitectures": instance_type["ProcessorInfo"]["SupportedArchitectures"],
    }


def _get_availability_zones(client: AwsClient, arguments: Properties) -> Properties:
    filters = _filters(arguments)
    if "state" in arguments:
        filters.append({"Name": "state", "Values": [arguments["state"]]})
    with translate_errors("reading EC2 Availability Zones"):
        zones = client.ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"]
    zones.sort(key=lambda zone: str(zone["ZoneName"]))
    return {
        "groupNames": [*sorted({str(zone.get("GroupName", client.region)) for zone in zones})],
        "id": client.region,
        "names": [zone["ZoneName"] for zone in zones],
        "zoneIds": [zone["ZoneId"] for zone in zones],
    }


def _get_zone(client: AwsClient, arguments: Properties) -> Properties:
    name = str(arguments["name"]).rstrip(".")
    with translate_errors("reading Route 53 Hosted Zone"):
        pages = client.route53.get_paginator("list_hosted_zones").paginate()
        zones = [
            zone
            for page in pages
            for zone in page["HostedZones"]
            if zone["Name"].rstrip(".") == name and not zone.get("Config", {}).get("PrivateZone")
        ]
        if not zones:
            raise ProviderError("no matching Route 53 Hosted Zone found")
        if len(zones) > 1:
            raise ProviderError("multiple Route 53 Hosted Zones matched")
        zone = client.route53.get_hosted_zone(Id=zones[0]["Id"])
    found = zone["HostedZone"]
    zone_id = found["Id"].rsplit("/", 1)[-1]
    servers = zone.get("DelegationSet", {}).get("NameServers", [])
    return {
        "arn": f"arn:aws:route53:::hostedzone/{zone_id}",
        "callerReference": found.get("CallerReference", ""),
        "comment": found.get("Config", {}).get("Comment", ""),
        "id": zone_id,
        "name": found["Name"].rstrip("."),
        "nameServers": servers,
        "primaryNameServer": servers[0] if servers else "",
        "privateZone": False,
        "resourceRecordSetCount": found.get("ResourceRecordSetCount", 0),
        "zoneId": zone_id,
    }


FUNCTIONS: Mapping[str, tuple[Callable[[AwsClient, Properties], Properties], frozenset[str]]] = {
    "aws:ec2/getAmi:getAmi": (_get_ami, frozenset({"filters", "mostRecent", "owners"})),
    "aws:ec2/getSubnet:getSubnet": (
        _get_subnet,
        frozenset({"filters", "id"}),
    ),
    "aws:ec2/getInstanceType:getInstanceType": (_get_instance_type, frozenset({"instanceType"})),
    "aws:index/getAvailabilityZones:getAvailabilityZones": (
        _get_availability_zones,
        frozenset({"filters", "state"}),
    ),
    "aws:route53/getZone:getZone": (_get_zone, frozenset({"name"})),
}
"""Each function with the names of its arguments, by token."""


def call(client: AwsClient, token: str, arguments: Properties) -> Properties:
    """Calls a function by its token and returns its result."""
    if token not in FUNCTIONS:
        raise ProviderError(f"unknown function {token}: the sandbox's aws provider does not support it")
    function, known = FUNCTIONS[token]
    if unknown := sorted(arguments.keys() - known):
        raise ProviderError(
            f"unknown argument {', '.join(unknown)} of {token}: the sandbox's aws provider does not support it"
        )
    return {**arguments, "region": client.region, **function(client, arguments)}
