"""EC2 instances."""

import base64
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import (
    AwsClient,
    api_error,
    describe_one,
    error_code,
    get_tags,
    is_not_found,
    rename_keys,
    tag_specifications,
)
from sandbox.plugins.aws.resource_type import AwsResourceType, update_ec2_tags
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


def _create(client: AwsClient, inputs: Properties) -> str:
    request: dict[str, Any] = {
        "ImageId": inputs["ami"],
        "InstanceType": inputs["instanceType"],
        "TagSpecifications": [
            *tag_specifications("instance", inputs.get("tags")),
            *tag_specifications("volume", {**client.default_tags, **_volume_tags(inputs)}),
        ],
        **_network(inputs),
    }
    if "availabilityZone" in inputs:
        request["Placement"] = {"AvailabilityZone": inputs["availabilityZone"]}
    if "userData" in inputs:
        request["UserData"] = inputs["userData"]
    if volume := rename_keys(inputs.get("rootBlockDevice"), VOLUME):
        image = client.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"][0]
        ebs = {"DeleteOnTermination": True, **volume}
        request["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": ebs}]
    if metadata := rename_keys(inputs.get("metadataOptions"), METADATA):
        request["MetadataOptions"] = metadata
    if not (profile := inputs.get("iamInstanceProfile")):
        return _run(client, request)

    def run_with_profile() -> str:
        found = _profile(client, "RunInstances", profile)
        if not found["Roles"]:
            message = f'IAM Instance Profile "{found["Arn"]}" has no associated IAM Roles'
            raise api_error("RunInstances", "InvalidParameterValue", message)
        return _run(client, {**request, "IamInstanceProfile": {"Name": profile}})

    return client.retry_until_propagated(run_with_profile, _is_about_profile)


def _run(client: AwsClient, request: dict[str, Any]) -> str:
    return str(client.ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]["InstanceId"])


def _profile(client: AwsClient, operation: str, name: Value) -> dict[str, Any]:
    """Returns an instance profile, or raises EC2's error if it does not exist."""
    try:
        found: dict[str, Any] = client.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    except ClientError as problem:
        if not is_not_found(problem):
            raise
        message = f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        raise api_error(operation, "InvalidParameterValue", message) from problem
    return found


def _is_about_profile(problem: ClientError) -> bool:
    return error_code(problem) == "InvalidParameterValue" and "IAM Instance Profile" in str(problem)


def _association(client: AwsClient, instance_id: str) -> dict[str, Any]:
    """Returns the association of the instance's profile. moto's description of the instance has its first profile only."""
    of_instance = [{"Name": "instance-id", "Values": [instance_id]}]
    found = client.ec2.describe_iam_instance_profile_associations(Filters=of_instance)
    return next(iter(found["IamInstanceProfileAssociations"]), {})


def _profile_name(client: AwsClient, instance_id: str) -> str:
    profile = _association(client, instance_id).get("IamInstanceProfile", {})
    return str(profile.get("Arn", "")).rsplit("/", 1)[-1]


def _change_profile(client: AwsClient, instance_id: str, name: Value) -> None:
    association = _association(client, instance_id).get("AssociationId")

    def change() -> None:
        profile = {"Name": name}
        if association:
            _profile(client, "ReplaceIamInstanceProfileAssociation", name)
            client.ec2.replace_iam_instance_profile_association(
                AssociationId=association, IamInstanceProfile=profile
            )
        else:
            _profile(client, "AssociateIamInstanceProfile", name)
            client.ec2.associate_iam_instance_profile(InstanceId=instance_id, IamInstanceProfile=profile)

    client.retry_until_propagated(change, _is_about_profile)


def _network(inputs: Properties) -> dict[str, Any]:
    """Returns the request's primary network interface. It alone can have a public address, and ends with the instance."""
    names = {
        "subnetId": "SubnetId",
        "privateIp": "PrivateIpAddress",
        "associatePublicIpAddress": "AssociatePublicIpAddress",
        "vpcSecurityGroupIds": "Groups",
    }
    interface = rename_keys(inputs, names)
    fixed = {"DeviceIndex": 0, "DeleteOnTermination": True}
    return {"NetworkInterfaces": [{**fixed, **interface}]} if interface else {}


def _volume_tags(properties: Properties) -> Properties:
    device = properties.get("rootBlockDevice")
    tags = device.get("tags") if isinstance(device, dict) else None
    return tags if isinstance(tags, dict) else {}


def _describe(client: AwsClient, instance_id: str) -> dict[str, Any] | None:
    reservation = describe_one(
        lambda: client.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    )
    if reservation is None:
        return None
    found = {**reservation["Instances"][0], "OwnerId": reservation["OwnerId"]}
    return None if found["State"]["Name"] == "terminated" else found


def _read(client: AwsClient, instance_id: str, known: Properties) -> Properties | None:
    found = _describe(client, instance_id)
    if found is None:
        return None
    interface = _primary_interface(found)
    options = found.get("MetadataOptions", {})
    return {
        "ami": found["ImageId"],
        "arn": client.arn(found["OwnerId"], f"instance/{instance_id}"),
        # As in the official provider, an Elastic IP counts too: with `False` as input, a refresh then causes a replacement.
        "associatePublicIpAddress": "Association" in interface,
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "iamInstanceProfile": _profile_name(client, instance_id),
        "instanceState": found["State"]["Name"],
        "instanceType": found["InstanceType"],
        "keyName": found.get("KeyName", ""),
        "metadataOptions": {
            name: options[api_name] for name, api_name in METADATA.items() if api_name in options
        },
        "primaryNetworkInterfaceId": interface.get("NetworkInterfaceId", ""),
        "privateDns": found.get("PrivateDnsName", ""),
        "privateIp": found.get("PrivateIpAddress", ""),
        "publicDns": found.get("PublicDnsName", ""),
        "publicIp": found.get("PublicIpAddress", ""),
        "rootBlockDevice": _root_volume(client, found, known),
        "sourceDestCheck": found.get("SourceDestCheck", True),
        "subnetId": found.get("SubnetId", ""),
        "tags": get_tags(found),
        "vpcSecurityGroupIds": sorted(group["GroupId"] for group in interface.get("Groups", [])),
    }


def _primary_interface(found: dict[str, Any]) -> dict[str, Any]:
    interfaces = found.get("NetworkInterfaces", [])
    return next((one for one in interfaces if one["Attachment"]["DeviceIndex"] == 0), {})


def _root_volume(client: AwsClient, found: dict[str, Any], known: Properties) -> Value:
    for mapping in found.get("BlockDeviceMappings", []):
        if mapping["DeviceName"] == found.get("RootDeviceName"):
            volume = client.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"][0]
            return {
                "deleteOnTermination": mapping["Ebs"].get("DeleteOnTermination", True),
                "deviceName": mapping["DeviceName"],
                "encrypted": volume["Encrypted"],
                "iops": volume.get("Iops", 0),
                "kmsKeyId": volume.get("KmsKeyId", ""),
                "tags": _own_tags(client, volume),
                "throughput": volume.get("Throughput", 0),
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
            }
    return known.get("rootBlockDevice")


def _own_tags(client: AwsClient, volume: dict[str, Any]) -> Properties:
    """Returns the volume's tags without the provider's default tags, which it gets only at creation.

    When a default tag changes, the volume's old value counts as its own tag, and an update removes it. The official provider
    does the same (terraform-provider-aws, issue 38301).
    """
    return {key: value for key, value in get_tags(volume).items() if client.default_tags.get(key) != value}


def _state_is(client: AwsClient, instance_id: str, wanted: str) -> None:
    def reached() -> bool:
        found = _describe(client, instance_id)
        return (found["State"]["Name"] if found else "terminated") == wanted

    client.wait(f"EC2 Instance ({instance_id}) to be {wanted}", reached)


def _update(
    client: AwsClient, instance_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "iamInstanceProfile" in changed:
        _change_profile(client, instance_id, inputs["iamInstanceProfile"])
    if "sourceDestCheck" in changed:
        value = {"Value": bool(inputs["sourceDestCheck"])}
        client.ec2.modify_instance_attribute(InstanceId=instance_id, SourceDestCheck=value)
    if "vpcSecurityGroupIds" in changed:
        client.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=state["primaryNetworkInterfaceId"], Groups=inputs["vpcSecurityGroupIds"]
        )
    if "instanceType" in changed:
        _modify_stopped(client, instance_id, InstanceType={"Value": inputs["instanceType"]})
    if "userData" in changed:
        encoded = base64.b64encode(str(inputs.get("userData", "")).encode()).decode()
        _modify_stopped(client, instance_id, Attribute="userData", Value=encoded)
    if "metadataOptions" in changed:
        options = _merged(state.get("metadataOptions"), inputs.get("metadataOptions"))
        client.ec2.modify_instance_metadata_options(InstanceId=instance_id, **rename_keys(options, METADATA))
    if "rootBlockDevice" in changed:
        _update_root_volume(client, instance_id, state, inputs)


def _modify_stopped(client: AwsClient, instance_id: str, **change: Any) -> None:
    client.ec2.stop_instances(InstanceIds=[instance_id])
    _state_is(client, instance_id, "stopped")
    client.ec2.modify_instance_attribute(InstanceId=instance_id, **change)
    client.ec2.start_instances(InstanceIds=[instance_id])
    _state_is(client, instance_id, "running")


def _merged(old: Value, new: Value) -> Properties:
    return {**(old if isinstance(old, dict) else {}), **(new if isinstance(new, dict) else {})}


def _update_root_volume(client: AwsClient, instance_id: str, state: Properties, inputs: Properties) -> None:
    old, wanted = state["rootBlockDevice"], inputs["rootBlockDevice"]
    assert isinstance(old, dict)
    assert isinstance(wanted, dict)
    changed = {name: value for name, value in wanted.items() if value != old.get(name)}
    sizes = {"volumeSize": "Size", "volumeType": "VolumeType", "iops": "Iops", "throughput": "Throughput"}
    if request := rename_keys(changed, sizes):
        client.ec2.modify_volume(VolumeId=old["volumeId"], **request)
        client.wait("EBS Volume to be modified", lambda: _modified(client, old["volumeId"]))
    if "deleteOnTermination" in changed:
        ebs = {"DeleteOnTermination": changed["deleteOnTermination"]}
        client.ec2.modify_instance_attribute(
            InstanceId=instance_id, BlockDeviceMappings=[{"DeviceName": old["deviceName"], "Ebs": ebs}]
        )
    if "tags" in changed:
        update_ec2_tags(client, str(old["volumeId"]), old.get("tags"), _volume_tags(inputs))


def _modified(client: AwsClient, volume_id: Value) -> bool:
    modifications = client.ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"]
    return all(one["ModificationState"] in ("optimizing", "completed") for one in modifications)


def _delete(client: AwsClient, instance_id: str, state: Properties) -> None:
    try:
        client.ec2.terminate_instances(InstanceIds=[instance_id])
    except ClientError as problem:
        if not is_not_found(problem):
            raise
        return
    _state_is(client, instance_id, "terminated")


INSTANCE = AwsResourceType(
    token="aws:ec2/instance:Instance",
    label="EC2 Instance",
    replace_on_change=frozenset(
        {
            "ami", "subnetId", "privateIp", "availabilityZone", "associatePublicIpAddress",
            "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId",
        }
    ),
    update_on_change=frozenset(
        {
            "instanceType", "userData", "userDataReplaceOnChange", "vpcSecurityGroupIds",
            "metadataOptions", "rootBlockDevice", "sourceDestCheck", "iamInstanceProfile",
        }
    ),
    nested_inputs={"metadataOptions": frozenset(METADATA), "rootBlockDevice": frozenset(VOLUME) | {"tags"}},
    nested_outputs={"rootBlockDevice": frozenset({"deviceName", "volumeId"})},
    chosen_by_aws=frozenset(
        {
            "subnetId", "privateIp", "availabilityZone", "associatePublicIpAddress",
            "vpcSecurityGroupIds", "metadataOptions", "rootBlockDevice", "iamInstanceProfile",
        }
    ),
    required=frozenset({"ami", "instanceType"}),
    unordered=frozenset({"vpcSecurityGroupIds"}),
    replace_if={"userData": "userDataReplaceOnChange"},
    defaults={"sourceDestCheck": True, "userDataReplaceOnChange": False},
    outputs=frozenset(
        {
            "arn", "instanceState", "keyName", "primaryNetworkInterfaceId", "privateDns", "publicDns", "publicIp",
        }
    ),
    # These changes stop and start the instance, which gets another public address.
    outputs_changed_by=dict.fromkeys(
        ("publicIp", "publicDns"), frozenset({"instanceType", "userData"})
    ),
    create=_create,
    finish_create=lambda client, instance_id, _: _state_is(client, instance_id, "running"),
    read=_read,
    update=_update,
    delete=_delete,
)  # fmt: skip
