"""EC2 instances."""

import base64
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from sandbox.plugins.aws.cloud import Cloud, is_gone, tag_specifications, tags_of
from sandbox.plugins.aws.kind import Kind
from sandbox.plugins.properties import Properties, Value

METADATA = {
    "httpEndpoint": "HttpEndpoint",
    "httpTokens": "HttpTokens",
    "httpPutResponseHopLimit": "HttpPutResponseHopLimit",
    "httpProtocolIpv6": "HttpProtocolIpv6",
    "instanceMetadataTags": "InstanceMetadataTags",
}
VOLUME = {
    "volumeSize": "VolumeSize",
    "volumeType": "VolumeType",
    "iops": "Iops",
    "throughput": "Throughput",
    "encrypted": "Encrypted",
    "kmsKeyId": "KmsKeyId",
    "deleteOnTermination": "DeleteOnTermination",
}


def renamed(properties: Value, names: dict[str, str]) -> dict[str, Any]:
    given = properties if isinstance(properties, dict) else {}
    return {names[name]: value for name, value in given.items() if name in names}


def _create(cloud: Cloud, inputs: Properties) -> str:
    image = cloud.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"][0]
    request: dict[str, Any] = {
        "ImageId": inputs["ami"],
        "InstanceType": inputs["instanceType"],
        "TagSpecifications": tag_specifications("instance", inputs.get("tags")),
    }
    network = {
        "SubnetId": inputs.get("subnetId"),
        "PrivateIpAddress": inputs.get("privateIp"),
        "AssociatePublicIpAddress": inputs.get("associatePublicIpAddress"),
        "Groups": inputs.get("vpcSecurityGroupIds"),
    }
    if "associatePublicIpAddress" in inputs:
        request["NetworkInterfaces"] = [
            {"DeviceIndex": 0, **{name: value for name, value in network.items() if value is not None}}
        ]
    else:
        network["SecurityGroupIds"] = network.pop("Groups")
        request |= {name: value for name, value in network.items() if value is not None}
    if "availabilityZone" in inputs:
        request["Placement"] = {"AvailabilityZone": inputs["availabilityZone"]}
    if "keyName" in inputs:
        request["KeyName"] = inputs["keyName"]
    if user_data := _user_data(inputs):
        request["UserData"] = user_data
    if volume := renamed(inputs.get("rootBlockDevice"), VOLUME):
        request["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": volume}]
    if metadata := renamed(inputs.get("metadataOptions"), METADATA):
        request["MetadataOptions"] = metadata
    created = cloud.ec2.run_instances(MinCount=1, MaxCount=1, **request)
    return str(created["Instances"][0]["InstanceId"])


def _user_data(inputs: Properties) -> str:
    """As the request takes it: botocore encodes the text once more on its own."""
    if "userDataBase64" in inputs:
        return base64.b64decode(str(inputs["userDataBase64"])).decode()
    return str(inputs.get("userData", ""))


def _describe(cloud: Cloud, instance_id: str) -> dict[str, Any] | None:
    try:
        reservations = cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    except ClientError as problem:
        if is_gone(problem):
            return None
        raise
    if not reservations:
        return None
    found = {**reservations[0]["Instances"][0], "OwnerId": reservations[0]["OwnerId"]}
    return None if found["State"]["Name"] == "terminated" else found


def _read(cloud: Cloud, instance_id: str, known: Properties) -> Properties | None:
    found = _describe(cloud, instance_id)
    if found is None:
        return None
    interfaces = found.get("NetworkInterfaces") or [{}]
    options = found.get("MetadataOptions", {})
    return {
        "ami": found["ImageId"],
        "arn": cloud.arn(found["OwnerId"], f"instance/{instance_id}"),
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "instanceState": found["State"]["Name"],
        "instanceType": found["InstanceType"],
        "keyName": found.get("KeyName", ""),
        "metadataOptions": {name: options[theirs] for name, theirs in METADATA.items() if theirs in options},
        "primaryNetworkInterfaceId": interfaces[0].get("NetworkInterfaceId", ""),
        "privateDns": found.get("PrivateDnsName", ""),
        "privateIp": found.get("PrivateIpAddress", ""),
        "publicDns": found.get("PublicDnsName", ""),
        "publicIp": found.get("PublicIpAddress", ""),
        "rootBlockDevice": _root_volume(cloud, found, known),
        "sourceDestCheck": found.get("SourceDestCheck", True),
        "subnetId": found.get("SubnetId", ""),
        "tags": tags_of(found),
        "vpcSecurityGroupIds": sorted(group["GroupId"] for group in found.get("SecurityGroups", [])),
    }


def _root_volume(cloud: Cloud, found: dict[str, Any], known: Properties) -> Value:
    for mapping in found.get("BlockDeviceMappings", []):
        if mapping["DeviceName"] == found.get("RootDeviceName"):
            volume = cloud.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"][0]
            return {
                "deleteOnTermination": mapping["Ebs"].get("DeleteOnTermination", True),
                "deviceName": mapping["DeviceName"],
                "encrypted": volume["Encrypted"],
                "iops": volume.get("Iops", 0),
                "kmsKeyId": volume.get("KmsKeyId", ""),
                "tags": tags_of(volume),
                "throughput": volume.get("Throughput", 0),
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
            }
    return known.get("rootBlockDevice")


def _state_is(cloud: Cloud, instance_id: str, wanted: str) -> None:
    def reached() -> bool:
        found = _describe(cloud, instance_id)
        return (found["State"]["Name"] if found else "terminated") == wanted

    cloud.wait(f"EC2 Instance ({instance_id}) to be {wanted}", reached)


def _delete(cloud: Cloud, instance_id: str, state: Properties) -> None:
    try:
        cloud.ec2.terminate_instances(InstanceIds=[instance_id])
    except ClientError as problem:
        if not is_gone(problem):
            raise
    _state_is(cloud, instance_id, "terminated")


INSTANCE = Kind(
    token="aws:ec2/instance:Instance",
    called="EC2 Instance",
    replacing=frozenset(
        {
            "ami", "subnetId", "privateIp", "availabilityZone", "keyName", "associatePublicIpAddress",
            "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId",
        }
    ),
    in_place=frozenset(
        {
            "instanceType", "userData", "userDataBase64", "userDataReplaceOnChange", "vpcSecurityGroupIds",
            "metadataOptions", "rootBlockDevice", "sourceDestCheck",
        }
    ),
    members={"metadataOptions": frozenset(METADATA), "rootBlockDevice": frozenset(VOLUME) | {"tags"}},
    chosen=frozenset(
        {
            "subnetId", "privateIp", "availabilityZone", "keyName", "associatePublicIpAddress",
            "vpcSecurityGroupIds", "metadataOptions", "rootBlockDevice",
        }
    ),
    defaults={"sourceDestCheck": True, "userDataReplaceOnChange": False},
    outputs=frozenset(
        {
            "arn", "instanceState", "primaryNetworkInterfaceId", "privateDns", "publicDns", "publicIp",
        }
    ),
    create=_create,
    ready=lambda cloud, instance_id: _state_is(cloud, instance_id, "running"),
    read=_read,
    delete=_delete,
)  # fmt: skip
