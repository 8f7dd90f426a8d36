"""EC2 instances."""

import base64
import secrets
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import (
    AwsClient,
    describe_one,
    error_code,
    get_tags,
    is_not_found,
    rename_keys,
    tag_specifications,
    to_tag_list,
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
    (image,) = client.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"]
    request: dict[str, Any] = {
        "ImageId": image["ImageId"],
        "InstanceType": inputs["instanceType"],
        "ClientToken": secrets.token_hex(16),
        "DisableApiTermination": False,
        "EbsOptimized": False,
        "Monitoring": {"Enabled": False},
        "Placement": {"AvailabilityZone": inputs.get("availabilityZone", "")},
        "TagSpecifications": tag_specifications("instance", client.merge_tags(inputs.get("tags"))),
        **_network(inputs),
    }
    if "userData" in inputs:
        request["UserData"] = inputs["userData"]
    if volume := rename_keys(inputs.get("rootBlockDevice"), VOLUME):
        ebs = {"DeleteOnTermination": True, **volume}
        request["BlockDeviceMappings"] = [{"DeviceName": image["RootDeviceName"], "Ebs": ebs}]
    if metadata := rename_keys(inputs.get("metadataOptions"), METADATA):
        request["MetadataOptions"] = metadata
    if profile := inputs.get("iamInstanceProfile"):
        request["IamInstanceProfile"] = {"Name": profile}

    def run() -> str:
        return str(client.ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]["InstanceId"])

    return client.retry_until_propagated(run, _is_about_profile)


def _finish_create(client: AwsClient, instance_id: str, inputs: Properties) -> None:
    _wait_for_state(client, instance_id, "running")
    found = _describe(client, instance_id)
    device = found and _root_device(found)
    if device and (tags := client.merge_tags(_volume_tags(inputs))):
        client.ec2.create_tags(Resources=[device["Ebs"]["VolumeId"]], Tags=to_tag_list(tags))


def _is_about_profile(problem: ClientError) -> bool:
    return error_code(problem) == "InvalidParameterValue" and "IAM Instance Profile" in str(problem)


def _change_profile(client: AwsClient, instance_id: str, name: Value) -> None:
    of_instance = [{"Name": "instance-id", "Values": [instance_id]}]
    associations = client.ec2.describe_iam_instance_profile_associations(Filters=of_instance)[
        "IamInstanceProfileAssociations"
    ]
    association = associations[0]["AssociationId"] if associations else None
    found = _describe(client, instance_id)
    if association and (not found or found["State"]["Name"] != "running"):
        # AWS replaces the profile of a running instance only.
        client.ec2.disassociate_iam_instance_profile(AssociationId=association)
        association = None

    def change() -> None:
        profile = {"Name": name}
        if association:
            client.ec2.replace_iam_instance_profile_association(
                AssociationId=association, IamInstanceProfile=profile
            )
        else:
            client.ec2.associate_iam_instance_profile(InstanceId=instance_id, IamInstanceProfile=profile)

    client.retry_until_propagated(change, _is_about_profile)
    client.wait(
        f"EC2 Instance ({instance_id}) to have its IAM instance profile",
        lambda: _profile_name(_describe(client, instance_id) or {}) == name,
    )


def _profile_name(found: dict[str, Any]) -> str:
    return str(found.get("IamInstanceProfile", {}).get("Arn", "")).rsplit("/", 1)[-1]


def _network(inputs: Properties) -> dict[str, Any]:
    """Returns the request's primary network interface. It alone can have a public address."""
    names = {
        "subnetId": "SubnetId",
        "privateIp": "PrivateIpAddress",
        "associatePublicIpAddress": "AssociatePublicIpAddress",
        "vpcSecurityGroupIds": "Groups",
    }
    interface = rename_keys(inputs, names)
    return {"NetworkInterfaces": [{"DeviceIndex": 0, **interface}]} if interface else {}


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
    user_data = _read_attributes(client, found)
    return {
        **({"userData": user_data} if user_data or "userData" in known else {}),
        "ami": found["ImageId"],
        "arn": client.arn(found["OwnerId"], f"instance/{instance_id}"),
        # As in the official provider: `True` with an Elastic IP, `False` for a stopped instance (terraform-provider-aws,
        # issue 33775). A refresh then causes a replacement, unless the program ignores changes of this input.
        "associatePublicIpAddress": "Association" in interface,
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "iamInstanceProfile": _profile_name(found),
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


def _read_attributes(client: AwsClient, found: dict[str, Any]) -> str:
    """Makes the other calls of the official provider's reader. Returns the user data."""
    instance_id = found["InstanceId"]
    client.ec2.describe_instance_types(InstanceTypes=[found["InstanceType"]])
    client.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance_id]}])
    if "VpcId" in found:
        client.ec2.describe_vpcs(VpcIds=[found["VpcId"]])
    client.ec2.describe_instance_credit_specifications(InstanceIds=[instance_id])
    attributes = {
        name: client.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name)
        for name in (
            "disableApiStop",
            "disableApiTermination",
            "instanceInitiatedShutdownBehavior",
            "userData",
        )
    }
    encoded = attributes["userData"].get("UserData", {}).get("Value", "")
    return base64.b64decode(encoded).decode(errors="replace")


def _primary_interface(found: dict[str, Any]) -> dict[str, Any]:
    interfaces = found.get("NetworkInterfaces", [])
    return next((one for one in interfaces if one["Attachment"]["DeviceIndex"] == 0), {})


def _root_volume(client: AwsClient, found: dict[str, Any], known: Properties) -> Value:
    mapping = _root_device(found)
    attached = [{"Name": "attachment.instance-id", "Values": [found["InstanceId"]]}]
    volumes = client.ec2.describe_volumes(Filters=attached)["Volumes"]
    for volume in volumes:
        if mapping and volume["VolumeId"] == mapping["Ebs"]["VolumeId"]:
            tags = get_tags(volume)
            return {
                "deleteOnTermination": mapping["Ebs"].get("DeleteOnTermination", True),
                "deviceName": mapping["DeviceName"],
                "encrypted": volume["Encrypted"],
                "iops": volume.get("Iops", 0),
                "kmsKeyId": volume.get("KmsKeyId", ""),
                # A volume gets default tags only at its creation. When one changes, the volume's old value counts as its own tag,
                # and an update removes it (terraform-provider-aws, issue 38301).
                "tags": client.own_tags(tags, _volume_tags(known)),
                "tagsAll": tags,
                "throughput": volume.get("Throughput", 0),
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
            }
    return known.get("rootBlockDevice")


def _root_device(found: dict[str, Any]) -> dict[str, Any] | None:
    name = found.get("RootDeviceName")
    return next(
        (mapping for mapping in found.get("BlockDeviceMappings", []) if mapping["DeviceName"] == name), None
    )


def _wait_for_state(client: AwsClient, instance_id: str, wanted: str) -> None:
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
        client.wait(
            f"EC2 Instance ({instance_id}) metadata options to be applied",
            lambda: (
                (_describe(client, instance_id) or {}).get("MetadataOptions", {}).get("State") == "applied"
            ),
        )
    if "rootBlockDevice" in changed:
        _update_root_volume(client, instance_id, state, inputs)


def _modify_stopped(client: AwsClient, instance_id: str, **change: Any) -> None:
    client.ec2.stop_instances(InstanceIds=[instance_id])
    _wait_for_state(client, instance_id, "stopped")
    client.ec2.modify_instance_attribute(InstanceId=instance_id, **change)
    client.ec2.start_instances(InstanceIds=[instance_id])
    _wait_for_state(client, instance_id, "running")


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
        client.ec2.modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})
        client.ec2.terminate_instances(InstanceIds=[instance_id])
    except ClientError as problem:
        if not is_not_found(problem):
            raise
        return
    _wait_for_state(client, instance_id, "terminated")


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
    nested_outputs={"rootBlockDevice": frozenset({"deviceName", "tagsAll", "volumeId"})},
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
    finish_create=_finish_create,
    read=_read,
    update=_update,
    delete=_delete,
)  # fmt: skip
