"""The functions (Terraform's data sources) that the program calls."""

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import (
    AwsClient,
    error_code,
    get_tags,
    is_not_found,
    list_errors,
    translate_errors,
)
from sandbox.plugins.aws.network import subnet_properties
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import ProviderError

NOTHING = "Your query returned no results. Please change your search criteria and try again."
TOO_MANY = "Your query returned more than one result. Please try a more specific search criteria"
UNFILTERED = (
    'Most Recent Image Not Filtered: "most_recent" is set to "true" and results are not filtered by owner or image ID. '
    "With this configuration, a third party may introduce a new image which will be returned by this data source. "
    "Filter by owner or image ID to avoid this possibility."
)


def _filters(arguments: Properties) -> list[dict[str, Any]]:
    filters = arguments.get("filters")
    return [
        {"Name": entry["name"], "Values": entry["values"]}
        for entry in (filters if isinstance(filters, list) else [])
        if isinstance(entry, dict)
    ]


def _find_single(what: str, describe: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the only result of a query. Otherwise the error has the text of the official provider."""
    with translate_errors(f"reading {what}"):
        try:
            found = describe()
        except ClientError as problem:
            if not is_not_found(problem):
                raise
            found = []
    if not found:
        raise ProviderError(f"no matching {what} found")
    if len(found) > 1:
        raise ProviderError(
            f"multiple {what}s matched; use additional constraints to reduce matches to a single {what}"
        )
    return found[0]


def _get_ami(client: AwsClient, arguments: Properties) -> Properties:
    filters = _filters(arguments)
    if (
        arguments.get("mostRecent")
        and "owners" not in arguments
        and not {"image-id", "owner-id"} & {each["Name"] for each in filters}
    ):
        raise ProviderError(UNFILTERED)
    request = {"Owners": arguments["owners"]} if "owners" in arguments else {}
    with translate_errors("reading EC2 AMIs"):
        images = client.ec2.describe_images(Filters=filters, **request)["Images"]
    if not images:
        raise ProviderError(NOTHING)
    if len(images) > 1 and not arguments.get("mostRecent"):
        raise ProviderError(f"{TOO_MANY}, or set `most_recent` attribute to true.")
    image = max(images, key=lambda candidate: str(candidate.get("CreationDate", "")))
    return {
        "architecture": image.get("Architecture", ""),
        "arn": f"arn:aws:ec2:{client.region}::image/{image['ImageId']}",
        "blockDeviceMappings": [*map(_image_device, image.get("BlockDeviceMappings", []))],
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


def _image_device(mapping: dict[str, Any]) -> Properties:
    """Returns a block device of an image. `ebs` is a map of texts, so its keys keep Terraform's names."""
    device: Properties = {
        "deviceName": mapping.get("DeviceName", ""),
        "virtualName": mapping.get("VirtualName", ""),
    }
    if (ebs := mapping.get("Ebs")) is not None:
        device["ebs"] = {
            **{
                name: "" if api_name not in ebs else str(ebs[api_name]).lower()
                for name, api_name in (
                    ("delete_on_termination", "DeleteOnTermination"),
                    ("encrypted", "Encrypted"),
                )
            },
            **{
                name: str(ebs.get(api_name, 0))
                for name, api_name in (
                    ("iops", "Iops"),
                    ("throughput", "Throughput"),
                    ("volume_size", "VolumeSize"),
                )
            },
            "snapshot_id": ebs.get("SnapshotId", ""),
            "volume_type": ebs.get("VolumeType", ""),
        }
    return device


def _get_subnet(client: AwsClient, arguments: Properties) -> Properties:
    request = {"SubnetIds": [arguments["id"]]} if "id" in arguments else {}
    subnet = _find_single(
        "EC2 Subnet",
        lambda: client.ec2.describe_subnets(Filters=_filters(arguments), **request)["Subnets"],
    )
    return {
        **subnet_properties(subnet),
        "availableIpAddressCount": subnet["AvailableIpAddressCount"],
        "defaultForAz": subnet["DefaultForAz"],
        "id": subnet["SubnetId"],
        "state": subnet["State"],
    }


def _get_subnets(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading EC2 Subnets"):
        subnets = client.ec2.describe_subnets(Filters=_filters(arguments))["Subnets"]
    return {"id": client.region, "ids": [subnet["SubnetId"] for subnet in subnets]}


def _get_route_table(client: AwsClient, arguments: Properties) -> Properties:
    filters = _filters(arguments)
    for name, api_name in (("subnetId", "association.subnet-id"), ("vpcId", "vpc-id")):
        if name in arguments:
            filters.append({"Name": api_name, "Values": [arguments[name]]})
    with translate_errors("reading EC2 VPC Route Table"):
        tables = client.ec2.describe_route_tables(Filters=filters)["RouteTables"]
    if not tables:
        raise ProviderError("query returned no results. Please change your search criteria and try again")
    if len(tables) > 1:
        raise ProviderError(
            "multiple Route Tables matched; use additional constraints to reduce matches to a single Route Table"
        )
    (table,) = tables
    return {
        "arn": client.arn(table["OwnerId"], f"route-table/{table['RouteTableId']}"),
        "id": table["RouteTableId"],
        "ownerId": table["OwnerId"],
        "routeTableId": table["RouteTableId"],
        # As the official provider, without the routes within the VPC.
        "routes": [_route(route) for route in table["Routes"] if route.get("GatewayId") != "local"],
        "tags": get_tags(table),
        "vpcId": table["VpcId"],
    }


def _route(route: dict[str, Any]) -> Properties:
    names = {
        "carrierGatewayId": "CarrierGatewayId",
        "cidrBlock": "DestinationCidrBlock",
        "coreNetworkArn": "CoreNetworkArn",
        "destinationPrefixListId": "DestinationPrefixListId",
        "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
        "gatewayId": "GatewayId",
        "instanceId": "InstanceId",
        "ipv6CidrBlock": "DestinationIpv6CidrBlock",
        "localGatewayId": "LocalGatewayId",
        "natGatewayId": "NatGatewayId",
        "networkInterfaceId": "NetworkInterfaceId",
        "transitGatewayId": "TransitGatewayId",
        "vpcPeeringConnectionId": "VpcPeeringConnectionId",
    }
    return {name: route.get(api_name, "") for name, api_name in names.items()} | {"vpcEndpointId": ""}


def _get_network_interfaces(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading EC2 Network Interfaces"):
        found = client.ec2.describe_network_interfaces(Filters=_filters(arguments))["NetworkInterfaces"]
    return {"id": client.region, "ids": [interface["NetworkInterfaceId"] for interface in found]}


def _get_network_interface(client: AwsClient, arguments: Properties) -> Properties:
    interface = _find_single(
        "EC2 Network Interface",
        lambda: client.ec2.describe_network_interfaces(NetworkInterfaceIds=[arguments["id"]])[
            "NetworkInterfaces"
        ],
    )
    attachment = interface.get("Attachment")
    return {
        "attachments": [
            {
                "attachmentId": attachment.get("AttachmentId", ""),
                "deviceIndex": attachment.get("DeviceIndex", 0),
                "instanceId": attachment.get("InstanceId", ""),
                "instanceOwnerId": attachment.get("InstanceOwnerId", ""),
            }
        ]
        if attachment
        else [],
        "availabilityZone": interface["AvailabilityZone"],
        "description": interface.get("Description", ""),
        "id": interface["NetworkInterfaceId"],
        "interfaceType": interface.get("InterfaceType", ""),
        "ownerId": interface["OwnerId"],
        "privateIp": interface["PrivateIpAddress"],
        "privateIps": [address["PrivateIpAddress"] for address in interface["PrivateIpAddresses"]],
        "securityGroups": [group["GroupId"] for group in interface["Groups"]],
        "subnetId": interface["SubnetId"],
        "tags": {tag["Key"]: tag["Value"] for tag in interface.get("TagSet", [])},
        "vpcId": interface["VpcId"],
    }


def _instances(client: AwsClient, **request: Any) -> list[dict[str, Any]]:
    # moto's pages have 100 reservations.
    pages = client.ec2.get_paginator("describe_instances").paginate(**request)
    return [
        {**instance, "OwnerId": reservation["OwnerId"]}
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def _get_instances(client: AwsClient, arguments: Properties) -> Properties:
    states = {"Name": "instance-state-name", "Values": arguments.get("instanceStateNames") or ["running"]}
    with translate_errors("reading EC2 Instances"):
        found = _instances(client, Filters=[states, *_filters(arguments)])
    return {
        "id": client.region,
        "ids": [instance["InstanceId"] for instance in found],
        "ipv6Addresses": [],
        "privateIps": [
            instance["PrivateIpAddress"] for instance in found if instance.get("PrivateIpAddress")
        ],
        "publicIps": [instance["PublicIpAddress"] for instance in found if instance.get("PublicIpAddress")],
    }


def _get_instance(client: AwsClient, arguments: Properties) -> Properties:
    request = {"InstanceIds": [arguments["instanceId"]]} if "instanceId" in arguments else {}
    found = _find_single("EC2 Instance", lambda: _instances(client, Filters=_filters(arguments), **request))
    instance_id = str(found["InstanceId"])
    with translate_errors(f"reading EC2 Instance ({instance_id})"):
        # The official provider reads these for properties that no program of ours uses. It needs the permissions all the same.
        client.ec2.describe_instance_types(InstanceTypes=[found["InstanceType"]])
        volumes = [mapping["Ebs"]["VolumeId"] for mapping in found.get("BlockDeviceMappings", [])]
        if volumes:
            client.ec2.describe_volumes(VolumeIds=volumes)
        for attribute in ("disableApiStop", "disableApiTermination"):
            client.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=attribute)
    return {
        "ami": found["ImageId"],
        "arn": client.arn(found["OwnerId"], f"instance/{instance_id}"),
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "id": instance_id,
        "instanceState": found["State"]["Name"],
        "instanceType": found["InstanceType"],
        "keyName": found.get("KeyName", ""),
        "privateDns": found.get("PrivateDnsName", ""),
        "privateIp": found.get("PrivateIpAddress", ""),
        "publicDns": found.get("PublicDnsName", ""),
        "publicIp": found.get("PublicIpAddress", ""),
        "subnetId": found.get("SubnetId", ""),
        "tags": get_tags(found),
    }


def _get_ebs_volumes(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading EC2 EBS Volumes"):
        found = client.ec2.describe_volumes(Filters=_filters(arguments))["Volumes"]
    return {"id": client.region, "ids": [volume["VolumeId"] for volume in found]}


def _get_volume(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading EBS Volumes"):
        volumes = client.ec2.describe_volumes(Filters=_filters(arguments))["Volumes"]
    if not volumes:
        raise ProviderError(NOTHING)
    if len(volumes) > 1:
        raise ProviderError(f"{TOO_MANY}, or set `most_recent` attribute to true.")
    (found,) = volumes
    return {
        "availabilityZone": found["AvailabilityZone"],
        "encrypted": found["Encrypted"],
        "id": found["VolumeId"],
        "iops": found.get("Iops", 0),
        "kmsKeyId": found.get("KmsKeyId", ""),
        "multiAttachEnabled": found.get("MultiAttachEnabled", False),
        "size": found["Size"],
        "snapshotId": found.get("SnapshotId", ""),
        "tags": get_tags(found),
        "throughput": found.get("Throughput", 0),
        "volumeId": found["VolumeId"],
        "volumeType": found["VolumeType"],
    }


def _get_eips(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading EC2 EIPs"):
        found = client.ec2.describe_addresses(Filters=_filters(arguments))["Addresses"]
    return {
        "allocationIds": [address["AllocationId"] for address in found if address["Domain"] == "vpc"],
        "id": client.region,
        "publicIps": [address["PublicIp"] for address in found],
    }


def _get_elastic_ip(client: AwsClient, arguments: Properties) -> Properties:
    request = {"AllocationIds": [arguments["id"]]} if "id" in arguments else {}
    found = _find_single("EC2 EIP", lambda: client.ec2.describe_addresses(**request)["Addresses"])
    return {
        "associationId": found.get("AssociationId", ""),
        "domain": found["Domain"],
        "id": found["AllocationId"],
        "instanceId": found.get("InstanceId", ""),
        "networkInterfaceId": found.get("NetworkInterfaceId", ""),
        "privateIp": found.get("PrivateIpAddress", ""),
        "publicIp": found["PublicIp"],
        "tags": get_tags(found),
    }


def _get_service_quota(client: AwsClient, arguments: Properties) -> Properties:
    """Returns the account's quota. If it never changed, only the default exists."""
    service, code = str(arguments["serviceCode"]), str(arguments["quotaCode"])
    with translate_errors(f"getting Default Service Quota for ({service}/{code})"):
        default = _describe_quota(
            lambda: client.quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
        )
    if default is None:
        raise ProviderError(f"getting Default Service Quota for ({service}/{code}): couldn't find resource")
    with translate_errors(f"getting Service Quota for ({service}/{code})"):
        quota = _describe_quota(lambda: client.quotas.get_service_quota(ServiceCode=service, QuotaCode=code))
    applied = quota or default
    return {
        "adjustable": default["Adjustable"],
        "arn": applied["QuotaArn"],
        "defaultValue": default["Value"],
        "globalQuota": default["GlobalQuota"],
        "id": default["QuotaArn"],
        "quotaCode": default["QuotaCode"],
        "quotaName": default["QuotaName"],
        "serviceCode": default["ServiceCode"],
        "serviceName": default["ServiceName"],
        "usageMetrics": [],
        "value": applied["Value"],
    }


def _describe_quota(describe: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return dict(describe()["Quota"])
    except ClientError as problem:
        if error_code(problem) == "NoSuchResourceException":
            return None
        raise


def _get_instance_type_offerings(client: AwsClient, arguments: Properties) -> Properties:
    kind = {"LocationType": arguments["locationType"]} if "locationType" in arguments else {}
    with translate_errors("reading EC2 Instance Type Offerings"):
        pages = client.ec2.get_paginator("describe_instance_type_offerings").paginate(
            Filters=_filters(arguments), **kind
        )
        offers = [offer for page in pages for offer in page["InstanceTypeOfferings"]]
    return {
        "id": client.region,
        "instanceTypes": [offer["InstanceType"] for offer in offers],
        "locationTypes": [offer["LocationType"] for offer in offers],
        "locations": [offer["Location"] for offer in offers],
    }


def _get_instance_type(client: AwsClient, arguments: Properties) -> Properties:
    instance_type = _find_single(
        "EC2 Instance Type",
        lambda: client.ec2.describe_instance_types(InstanceTypes=[arguments["instanceType"]])[
            "InstanceTypes"
        ],
    )
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

    def list_zones() -> list[dict[str, Any]]:
        pages = client.route53.get_paginator("list_hosted_zones").paginate()
        return [
            zone
            for page in pages
            for zone in page["HostedZones"]
            if zone["Name"].rstrip(".") == name and not zone.get("Config", {}).get("PrivateZone")
        ]

    zone_id = str(_find_single("Route 53 Hosted Zone", list_zones)["Id"]).rsplit("/", 1)[-1]
    with translate_errors(f"reading Route 53 Hosted Zone ({zone_id})"):
        zone = client.route53.get_hosted_zone(Id=zone_id)
    with translate_errors(f"listing Route 53 Hosted Zone ({zone_id}) tags"):
        tags = client.route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=zone_id)
    found = zone["HostedZone"]
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
        "tags": get_tags(tags["ResourceTagSet"]),
        "zoneId": zone_id,
    }


def _get_caller_identity(client: AwsClient, arguments: Properties) -> Properties:
    with translate_errors("reading STS Caller Identity"):
        found = client.sts.get_caller_identity()
    return {
        "accountId": found["Account"],
        "arn": found["Arn"],
        "id": found["Account"],
        "userId": found["UserId"],
    }


def _get_region(client: AwsClient, arguments: Properties) -> Properties:
    """Returns the provider's region. The official provider knows the rest without a call, and no program of ours uses it."""
    return {"id": client.region, "name": client.region, "region": client.region}


def _get_bucket(client: AwsClient, arguments: Properties) -> Properties:
    name = str(arguments["bucket"])
    with translate_errors(f"reading S3 Bucket ({name})"):
        try:
            client.s3.head_bucket(Bucket=name)
        except ClientError as problem:
            if is_not_found(problem):
                raise ProviderError(f"reading S3 Bucket ({name}): couldn't find resource") from problem
            raise
        region = client.s3.get_bucket_location(Bucket=name).get("LocationConstraint") or "us-east-1"
    return {
        "arn": f"arn:aws:s3:::{name}",
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegion": region,
        "bucketRegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
        "id": name,
    }


FUNCTIONS: Mapping[str, tuple[Callable[[AwsClient, Properties], Properties], frozenset[str]]] = {
    "aws:ebs/getEbsVolumes:getEbsVolumes": (_get_ebs_volumes, frozenset({"filters"})),
    "aws:ebs/getVolume:getVolume": (_get_volume, frozenset({"filters"})),
    "aws:ec2/getAmi:getAmi": (_get_ami, frozenset({"filters", "includeDeprecated", "mostRecent", "owners"})),
    "aws:ec2/getEips:getEips": (_get_eips, frozenset({"filters"})),
    "aws:ec2/getElasticIp:getElasticIp": (_get_elastic_ip, frozenset({"id"})),
    "aws:ec2/getInstance:getInstance": (_get_instance, frozenset({"filters", "instanceId"})),
    "aws:ec2/getInstances:getInstances": (_get_instances, frozenset({"filters", "instanceStateNames"})),
    "aws:ec2/getInstanceType:getInstanceType": (_get_instance_type, frozenset({"instanceType"})),
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": (
        _get_instance_type_offerings,
        frozenset({"filters", "locationType"}),
    ),
    "aws:ec2/getNetworkInterface:getNetworkInterface": (_get_network_interface, frozenset({"id"})),
    "aws:ec2/getNetworkInterfaces:getNetworkInterfaces": (_get_network_interfaces, frozenset({"filters"})),
    "aws:ec2/getRouteTable:getRouteTable": (_get_route_table, frozenset({"filters", "subnetId", "vpcId"})),
    "aws:ec2/getSubnet:getSubnet": (_get_subnet, frozenset({"filters", "id"})),
    "aws:ec2/getSubnets:getSubnets": (_get_subnets, frozenset({"filters"})),
    "aws:index/getAvailabilityZones:getAvailabilityZones": (
        _get_availability_zones,
        frozenset({"filters", "state"}),
    ),
    "aws:index/getCallerIdentity:getCallerIdentity": (_get_caller_identity, frozenset()),
    "aws:index/getRegion:getRegion": (_get_region, frozenset()),
    "aws:s3/getBucket:getBucket": (_get_bucket, frozenset({"bucket"})),
    "aws:route53/getZone:getZone": (_get_zone, frozenset({"name"})),
    "aws:servicequotas/getServiceQuota:getServiceQuota": (
        _get_service_quota,
        frozenset({"quotaCode", "serviceCode"}),
    ),
}
"""Each function with the names of its arguments, by token."""


def call(client: AwsClient, token: str, arguments: Properties) -> Properties:
    """Calls a function by its token and returns its result. Errors have the official provider's form."""
    if token not in FUNCTIONS:
        raise ProviderError(f"unknown function {token}: the sandbox's aws provider does not support it")
    function, known = FUNCTIONS[token]
    if unknown := sorted(arguments.keys() - known):
        raise ProviderError(
            f"unknown argument {', '.join(unknown)} of {token}: the sandbox's aws provider does not support it"
        )
    try:
        answer = function(client, arguments)
    except ProviderError as problem:
        raise ProviderError(f"invoking {token}: {list_errors(problem)}") from problem
    return {**arguments, "region": client.region, **answer}
