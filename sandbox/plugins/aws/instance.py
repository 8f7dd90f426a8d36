"""EC2 instances."""

import base64
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import (
    Cloud,
    code,
    described,
    is_gone,
    refusal,
    renamed,
    tag_specifications,
    tags_of,
)
from sandbox.plugins.aws.resource_type import Kind, retag_in_ec2
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


def _create(cloud: Cloud, inputs: Properties) -> str:
    request: dict[str, Any] = {
        "ImageId": inputs["ami"],
        "InstanceType": inputs["instanceType"],
        "TagSpecifications": [
            *tag_specifications("instance", inputs.get("tags")),
            *tag_specifications("volume", {**cloud.default_tags, **_volume_tags(inputs)}),
        ],
        **_network(inputs),
    }
    if "availabilityZone" in inputs:
        request["Placement"] = {"AvailabilityZone": inputs["availabilityZone"]}
    if "keyName" in inputs:
        request["KeyName"] = inputs["keyName"]
    if user_data := _user_data(inputs):
        request["UserData"] = user_data
    if volume := renamed(inputs.get("rootBlockDevice"), VOLUME):
        image = cloud.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"][0]
        ebs = {"DeleteOnTermination": True, **volume}
        request["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": ebs}]
    if metadata := renamed(inputs.get("metadataOptions"), METADATA):
        request["MetadataOptions"] = metadata
    if not (profile := inputs.get("iamInstanceProfile")):
        return _run(cloud, request)

    def run_with_profile() -> str:
        found = _profile(cloud, "RunInstances", profile)
        if not found["Roles"]:
            message = f'IAM Instance Profile "{found["Arn"]}" has no associated IAM Roles'
            raise refusal("RunInstances", "InvalidParameterValue", message)
        return _run(cloud, {**request, "IamInstanceProfile": {"Name": profile}})

    return cloud.propagated(run_with_profile, _is_about_profile)


def _run(cloud: Cloud, request: dict[str, Any]) -> str:
    return str(cloud.ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]["InstanceId"])


def _profile(cloud: Cloud, operation: str, name: Value) -> dict[str, Any]:
    """An instance profile, as long as it is one that EC2 would take."""
    try:
        found: dict[str, Any] = cloud.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    except ClientError as problem:
        if not is_gone(problem):
            raise
        message = f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        raise refusal(operation, "InvalidParameterValue", message) from problem
    return found


def _is_about_profile(problem: ClientError) -> bool:
    return code(problem) == "InvalidParameterValue" and "IAM Instance Profile" in str(problem)


def _association(cloud: Cloud, instance_id: str) -> dict[str, Any]:
    """Which profile an instance has. moto's description of the instance itself tells the first that it ever had."""
    of_instance = [{"Name": "instance-id", "Values": [instance_id]}]
    found = cloud.ec2.describe_iam_instance_profile_associations(Filters=of_instance)
    return next(iter(found["IamInstanceProfileAssociations"]), {})


def _profile_name(cloud: Cloud, instance_id: str) -> str:
    profile = _association(cloud, instance_id).get("IamInstanceProfile", {})
    return str(profile.get("Arn", "")).rsplit("/", 1)[-1]


def _change_profile(cloud: Cloud, instance_id: str, name: Value) -> None:
    association = _association(cloud, instance_id).get("AssociationId")

    def change() -> None:
        profile = {"Name": name}
        if association:
            _profile(cloud, "ReplaceIamInstanceProfileAssociation", name)
            cloud.ec2.replace_iam_instance_profile_association(
                AssociationId=association, IamInstanceProfile=profile
            )
        else:
            _profile(cloud, "AssociateIamInstanceProfile", name)
            cloud.ec2.associate_iam_instance_profile(InstanceId=instance_id, IamInstanceProfile=profile)

    cloud.propagated(change, _is_about_profile)


def _network(inputs: Properties) -> dict[str, Any]:
    """The primary network interface, which alone can be told to have a public address, and which ends with its instance."""
    names = {
        "subnetId": "SubnetId",
        "privateIp": "PrivateIpAddress",
        "associatePublicIpAddress": "AssociatePublicIpAddress",
        "vpcSecurityGroupIds": "Groups",
    }
    interface = renamed(inputs, names)
    ends = {"DeviceIndex": 0, "DeleteOnTermination": True}
    return {"NetworkInterfaces": [{**ends, **interface}]} if interface else {}


def _volume_tags(properties: Properties) -> Properties:
    device = properties.get("rootBlockDevice")
    tags = device.get("tags") if isinstance(device, dict) else None
    return tags if isinstance(tags, dict) else {}


def _user_data(inputs: Properties) -> str:
    """As the request takes it: botocore encodes the text once more on its own."""
    if "userDataBase64" in inputs:
        return base64.b64decode(str(inputs["userDataBase64"])).decode()
    return str(inputs.get("userData", ""))


def _describe(cloud: Cloud, instance_id: str) -> dict[str, Any] | None:
    reservation = described(lambda: cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"])
    if reservation is None:
        return None
    found = {**reservation["Instances"][0], "OwnerId": reservation["OwnerId"]}
    return None if found["State"]["Name"] == "terminated" else found


def _read(cloud: Cloud, instance_id: str, known: Properties) -> Properties | None:
    found = _describe(cloud, instance_id)
    if found is None:
        return None
    interface = _primary_interface(found)
    options = found.get("MetadataOptions", {})
    return {
        "ami": found["ImageId"],
        "arn": cloud.arn(found["OwnerId"], f"instance/{instance_id}"),
        # An Elastic IP counts as well: with `False` asked for and one associated, a refresh leads to a replacement.
        "associatePublicIpAddress": "Association" in interface,
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "iamInstanceProfile": _profile_name(cloud, instance_id),
        "instanceState": found["State"]["Name"],
        "instanceType": found["InstanceType"],
        "keyName": found.get("KeyName", ""),
        "metadataOptions": {name: options[theirs] for name, theirs in METADATA.items() if theirs in options},
        "primaryNetworkInterfaceId": interface.get("NetworkInterfaceId", ""),
        "privateDns": found.get("PrivateDnsName", ""),
        "privateIp": found.get("PrivateIpAddress", ""),
        "publicDns": found.get("PublicDnsName", ""),
        "publicIp": found.get("PublicIpAddress", ""),
        "rootBlockDevice": _root_volume(cloud, found, known),
        "sourceDestCheck": found.get("SourceDestCheck", True),
        "subnetId": found.get("SubnetId", ""),
        "tags": tags_of(found),
        "vpcSecurityGroupIds": sorted(group["GroupId"] for group in interface.get("Groups", [])),
    }


def _primary_interface(found: dict[str, Any]) -> dict[str, Any]:
    interfaces = found.get("NetworkInterfaces", [])
    return next((one for one in interfaces if one["Attachment"]["DeviceIndex"] == 0), {})


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
                "tags": _own_tags(cloud, volume),
                "throughput": volume.get("Throughput", 0),
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
            }
    return known.get("rootBlockDevice")


def _own_tags(cloud: Cloud, volume: dict[str, Any]) -> Properties:
    """The volume's tags but for the provider's default tags, which it got when it was made.

    One that has changed since is nobody's: an update takes it away and brings no other. The official provider does
    the same (terraform-provider-aws, issue 38301).
    """
    return {key: value for key, value in tags_of(volume).items() if cloud.default_tags.get(key) != value}


def _state_is(cloud: Cloud, instance_id: str, wanted: str) -> None:
    def reached() -> bool:
        found = _describe(cloud, instance_id)
        return (found["State"]["Name"] if found else "terminated") == wanted

    cloud.wait(f"EC2 Instance ({instance_id}) to be {wanted}", reached)


def _update(cloud: Cloud, instance_id: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    if "iamInstanceProfile" in changed:
        _change_profile(cloud, instance_id, inputs["iamInstanceProfile"])
    if "sourceDestCheck" in changed:
        value = {"Value": bool(inputs["sourceDestCheck"])}
        cloud.ec2.modify_instance_attribute(InstanceId=instance_id, SourceDestCheck=value)
    if "vpcSecurityGroupIds" in changed:
        cloud.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=state["primaryNetworkInterfaceId"], Groups=inputs["vpcSecurityGroupIds"]
        )
    if "instanceType" in changed:
        _modify_stopped(cloud, instance_id, InstanceType={"Value": inputs["instanceType"]})
    if changed & {"userData", "userDataBase64"}:
        encoded = base64.b64encode(_user_data(inputs).encode()).decode()
        _modify_stopped(cloud, instance_id, Attribute="userData", Value=encoded)
    if "metadataOptions" in changed:
        options = _merged(state.get("metadataOptions"), inputs.get("metadataOptions"))
        cloud.ec2.modify_instance_metadata_options(InstanceId=instance_id, **renamed(options, METADATA))
    if "rootBlockDevice" in changed:
        _update_root_volume(cloud, instance_id, state, inputs)


def _modify_stopped(cloud: Cloud, instance_id: str, **change: Any) -> None:
    cloud.ec2.stop_instances(InstanceIds=[instance_id])
    _state_is(cloud, instance_id, "stopped")
    cloud.ec2.modify_instance_attribute(InstanceId=instance_id, **change)
    cloud.ec2.start_instances(InstanceIds=[instance_id])
    _state_is(cloud, instance_id, "running")


def _merged(old: Value, new: Value) -> Properties:
    return {**(old if isinstance(old, dict) else {}), **(new if isinstance(new, dict) else {})}


def _update_root_volume(cloud: Cloud, instance_id: str, state: Properties, inputs: Properties) -> None:
    old, wanted = state["rootBlockDevice"], inputs["rootBlockDevice"]
    assert isinstance(old, dict)
    assert isinstance(wanted, dict)
    changed = {name: value for name, value in wanted.items() if value != old.get(name)}
    sizes = {"volumeSize": "Size", "volumeType": "VolumeType", "iops": "Iops", "throughput": "Throughput"}
    if request := renamed(changed, sizes):
        cloud.ec2.modify_volume(VolumeId=old["volumeId"], **request)
        cloud.wait("EBS Volume to be modified", lambda: _modified(cloud, old["volumeId"]))
    if "deleteOnTermination" in changed:
        ebs = {"DeleteOnTermination": changed["deleteOnTermination"]}
        cloud.ec2.modify_instance_attribute(
            InstanceId=instance_id, BlockDeviceMappings=[{"DeviceName": old["deviceName"], "Ebs": ebs}]
        )
    if "tags" in changed:
        retag_in_ec2(cloud, str(old["volumeId"]), old.get("tags"), _volume_tags(inputs))


def _modified(cloud: Cloud, volume_id: Value) -> bool:
    modifications = cloud.ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
    return all(one["ModificationState"] in ("optimizing", "completed") for one in modifications)


def _delete(cloud: Cloud, instance_id: str, state: Properties) -> None:
    try:
        cloud.ec2.terminate_instances(InstanceIds=[instance_id])
    except ClientError as problem:
        if not is_gone(problem):
            raise
        return
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
            "metadataOptions", "rootBlockDevice", "sourceDestCheck", "iamInstanceProfile",
        }
    ),
    members={"metadataOptions": frozenset(METADATA), "rootBlockDevice": frozenset(VOLUME) | {"tags"}},
    member_outputs={"rootBlockDevice": frozenset({"deviceName", "volumeId"})},
    chosen=frozenset(
        {
            "subnetId", "privateIp", "availabilityZone", "keyName", "associatePublicIpAddress",
            "vpcSecurityGroupIds", "metadataOptions", "rootBlockDevice", "iamInstanceProfile",
        }
    ),
    required=frozenset({"ami", "instanceType"}),
    sets=frozenset({"vpcSecurityGroupIds"}),
    replaces_if={"userData": "userDataReplaceOnChange", "userDataBase64": "userDataReplaceOnChange"},
    defaults={"sourceDestCheck": True, "userDataReplaceOnChange": False},
    outputs=frozenset(
        {
            "arn", "instanceState", "primaryNetworkInterfaceId", "privateDns", "publicDns", "publicIp",
        }
    ),
    # It stops and starts, and AWS gives it another public address.
    renewed_by=dict.fromkeys(
        ("publicIp", "publicDns"), frozenset({"instanceType", "userData", "userDataBase64"})
    ),
    create=_create,
    ready=lambda cloud, instance_id, _: _state_is(cloud, instance_id, "running"),
    read=_read,
    update=_update,
    delete=_delete,
)  # fmt: skip
