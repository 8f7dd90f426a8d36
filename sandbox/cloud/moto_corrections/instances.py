"""RunInstances, the states of instances, and their instance profiles."""

import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from moto.core.responses import EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError, InvalidAMIIdError, InvalidSecurityGroupNotFoundError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.iam_instance_profile import (
    IamInstanceProfileAssociation,
    IamInstanceProfileAssociationBackend,
)
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import random_iam_instance_profile_association_id
from moto.iam.exceptions import NotFoundException
from moto.iam.models import InstanceProfile, iam_backends

from sandbox.cloud.moto_corrections import quotas
from sandbox.cloud.moto_corrections.correction import correct, correct_property

RUN = threading.Lock()
"""moto checks and takes private addresses in two steps; clients send many RunInstances at once."""


# ---- RunInstances


@correct(InstanceBackend, "run_instances")
def check_request(
    run: Any,
    backend: Any,
    image_id: str,
    count: int,
    user_data: Any,
    security_group_names: list[str],
    **request: Any,
) -> Any:
    """RunInstances checks the whole request first, and creates nothing if it is invalid."""
    with RUN:
        _check_image(backend, image_id, request)
        _check_instance_type(backend, request)
        if image_id in backend.amis:  # otherwise the launch template has it
            check_architecture(backend.amis[image_id], request["instance_type"])
        quotas.check_vcpus(backend, [request["instance_type"]] * count)
        _check_interfaces(backend, request)
        reservation = run(backend, image_id, count, user_data, security_group_names, **request)
    _set_volume_performance(backend, reservation, request)
    return reservation


def _check_image(backend: Any, image_id: str | None, request: dict[str, Any]) -> None:
    """AWS returns InvalidAMIID.NotFound and InvalidBlockDeviceMapping (scylladb/scylla-cluster-tests issue 2484)."""
    if image_id is None:  # the launch template has it
        return
    image = backend.amis.get(image_id)
    if image is None:
        raise InvalidAMIIdError([image_id])
    (root,) = image.block_device_mappings
    for mapping in request.get("block_device_mappings", []):
        size = mapping["Ebs"].get("VolumeSize")
        if (
            mapping["DeviceName"] == root["DeviceName"]
            and size is not None
            and size < root["Ebs"]["VolumeSize"]
        ):
            raise EC2ClientError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{root['Ebs']['SnapshotId']}', "
                f"expect size >= {root['Ebs']['VolumeSize']}GB",
            )


def _check_instance_type(backend: Any, request: dict[str, Any]) -> None:
    """AWS returns InvalidParameterValue for an unknown type (getmoto/moto issue 1695), Unsupported for one that its zone does not offer."""
    instance_type = request["instance_type"]
    if instance_type not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    subnet = _find_subnet(backend, request)
    if subnet is None:
        return
    offered = [
        offering["Location"]
        for offering in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(backend.region_name, [])
        if offering["InstanceType"] == instance_type
    ]
    if subnet.availability_zone not in offered:
        raise EC2ClientError(
            "Unsupported",
            f"Your requested instance type ({instance_type}) is not supported in your requested Availability Zone "
            f"({subnet.availability_zone}). Please retry your request by not specifying an Availability Zone or "
            f"choosing {', '.join(sorted(offered))}.",
        )


def check_architecture(image: Any, instance_type: str) -> None:
    """AWS returns InvalidParameterValue for a type whose processor cannot run the image (skypilot-org/skypilot issue 6315)."""
    supported = INSTANCE_TYPES[instance_type]["ProcessorInfo"]["SupportedArchitectures"]
    # moto's RegisterImage drops the architecture.
    if image.architecture and image.architecture not in supported:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the architecture "
            f"'{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again. You can use 'describe-instance-types' or 'describe-images' to discover the "
            "architecture of the instance type or AMI.",
        )


def _find_subnet(backend: Any, request: dict[str, Any]) -> Any:
    id = request.get("subnet_id") or next(
        (interface["SubnetId"] for interface in request.get("nics", []) if "SubnetId" in interface), None
    )
    return backend.get_subnet(id) if id else None


def _check_interfaces(backend: Any, request: dict[str, Any]) -> None:
    """AWS refuses unknown security groups (moto creates them), groups of another VPC, and addresses in use."""
    subnet = _find_subnet(backend, request)
    interfaces = request.get("nics", [])
    given = [*(request.get("security_group_ids") or [])]
    for interface in interfaces:
        given += interface.get("Groups") or []
        check_address(subnet, interface.get("PrivateIpAddress"))
    check_address(subnet, request.get("private_ip"))
    for group in find_groups(backend, [id for id in given if isinstance(id, str)]):
        if subnet is not None and group.vpc_id != subnet.vpc_id:
            raise EC2ClientError(
                "InvalidParameter",
                f"Security group {group.id} and subnet {subnet.id} belong to different networks.",
            )


def find_groups(backend: Any, ids: list[str]) -> Iterator[Any]:
    """Yields security groups by id; AWS returns InvalidGroup.NotFound for an unknown id."""
    for id in ids:
        group = backend.get_security_group_from_id(id)
        if group is None:
            raise InvalidSecurityGroupNotFoundError(id)
        yield group


def check_address(subnet: Any, address: str | None) -> None:
    """AWS returns InvalidIPAddress.InUse for an address in use, InvalidParameterValue for one that the subnet cannot assign."""
    if subnet is None or not address:
        return
    if ip_address(address) not in subnet.cidr:
        raise EC2ClientError(
            "InvalidParameterValue", f"Address {address} does not fall within the subnet's address range"
        )
    first, last = subnet.cidr[0], subnet.cidr[-1]
    if ip_address(address) in (first, first + 1, first + 2, first + 3, last):
        raise EC2ClientError(
            "InvalidParameterValue", f"Address {address} is in subnet's reserved address range"
        )
    if address in subnet._subnet_ips:
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address} is in use.")


@correct(Subnet, "request_ip")
def refuse_used_address(request_ip: Any, subnet: Any, address: str, instance: Any) -> None:
    """As `check_address`: moto raises a plain exception, which becomes HTTP 500."""
    check_address(subnet, address)
    request_ip(subnet, address, instance)


@correct(Instance, "prep_nics")
def delete_interfaces_on_termination(
    prepare: Any, instance: Any, specifications: list[dict[str, Any]], *args: Any, **options: Any
) -> None:
    """An interface that RunInstances creates is deleted with its instance, unless the request says otherwise.

    EC2 API, InstanceNetworkInterfaceSpecification; the primary interface in the EC2 User Guide, "Network interfaces".
    """
    unchanged = {
        int(specification["DeviceIndex"])
        for specification in specifications
        if "NetworkInterfaceId" in specification or "DeleteOnTermination" in specification
    }
    prepare(instance, specifications, *args, **options)
    for index, interface in instance.nics.items():
        if index not in unchanged:
            interface.delete_on_termination = True


def _set_volume_performance(backend: Any, reservation: Any, request: dict[str, Any]) -> None:
    """A volume has the IOPS and the throughput of its mapping (EC2 API, EbsBlockDevice); moto drops both."""
    mappings = {mapping["DeviceName"]: mapping["Ebs"] for mapping in request.get("block_device_mappings", [])}
    for instance in reservation.instances:
        for name, device in instance.get_block_device_mapping:
            volume = backend.volumes[device.volume_id]
            for attribute, key in (("iops", "Iops"), ("throughput", "Throughput")):
                if given := mappings.get(name, {}).get(key):
                    setattr(volume, attribute, given)


# ---- states


@correct(Instance, "start")
def start_stopped_instance(start: Any, instance: Any) -> Any:
    """StartInstances changes nothing on a running instance, and returns IncorrectInstanceState for a terminated one."""
    if instance.state == "terminated":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be started.",
        )
    if instance.state != "stopped":
        return instance.instance_state
    quotas.check_vcpus(instance.ec2_backend, [instance.instance_type])
    return start(instance)


@correct(Instance, "stop")
def stop_running_instance(stop: Any, instance: Any) -> Any:
    """StopInstances changes nothing on a stopped instance, and returns IncorrectInstanceState for a terminated one."""
    if instance.state == "terminated":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"This instance '{instance.id}' is not in a state from which it can be stopped.",
        )
    return instance.instance_state if instance.state == "stopped" else stop(instance)


@correct(Instance, "reboot")
def reboot_running_instance(reboot: Any, instance: Any) -> None:
    """RebootInstances returns IncorrectState for an instance that is not running (EC2 API error codes)."""
    if instance.state != "running":
        raise EC2ClientError(
            "IncorrectState",
            f"The following instance(s) are not in a valid state for this operation: {instance.id}",
        )
    reboot(instance)


@correct(Instance, "terminate")
def terminate_once(terminate: Any, instance: Any) -> Any:
    """TerminateInstances succeeds again on a terminated instance, and disassociates the Elastic IPs of its interfaces (EC2 User Guide)."""
    if instance.state == "terminated":
        return instance.instance_state
    interfaces: list[NetworkInterface] = list(instance.nics.values())
    for address in instance.ec2_backend.addresses:
        if address.eni in interfaces:
            address.eni.public_ip = None
            address.instance = address.eni = address.association_id = None
    for interface in interfaces:
        interface.status = "available"
    previous = terminate(instance)
    for interface in interfaces:
        interface.instance = interface.attachment_id = None
        interface.public_ip = None
    return previous


@correct(InstanceResponse, "modify_instance_attribute")
def require_stopped_instance(modify: Any, response: Any) -> Any:
    """ModifyInstanceAttribute changes type, user data and kernel of a stopped instance only: IncorrectInstanceState (EC2 API)."""
    attribute = response._get_param("Attribute")
    changed = {attribute} if attribute else set[str]()
    changed |= {
        name[0].lower() + name[1:]
        for name in ("InstanceType", "UserData", "Kernel", "EbsOptimized")
        if response._get_param(f"{name}.Value") is not None
    }
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    if changed & {"instanceType", "userData", "kernel", "ebsOptimized"} and instance.state != "stopped":
        raise EC2ClientError(
            "IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state."
        )
    if instance_type := response._get_param("InstanceType.Value"):
        check_architecture(response.ec2_backend.amis[instance.image_id], instance_type)
    user_data = response._get_param("UserData.Value")
    if isinstance(user_data, bytes):  # decoded once by moto's parser, which then decodes it again
        instance.user_data = Base64EncodedString.from_raw_bytes(user_data)
        return EmptyResult()
    return modify(response)


@correct(InstanceBackend, "modify_instance_metadata_options")
def keep_metadata_options(
    modify: Any, backend: Any, instance_id: str, dry_run: bool = False, **given: Any
) -> Any:
    """ModifyInstanceMetadataOptions keeps the options that the request does not name (EC2 API)."""
    options = backend.get_instance(instance_id).metadata_options
    current = {
        "http_tokens": options.http_tokens,
        "hop_limit": options.http_put_response_hop_limit,
        "http_endpoint": options.http_endpoint,
        "http_protocol": options.http_protocol_ipv6,
        "metadata_tags": options.instance_metadata_tags,
    }
    named = {name: value for name, value in given.items() if value is not None}
    return modify(backend, instance_id, dry_run=dry_run, **{**current, **named})


# ---- what DescribeInstances returns


def _get_groups(instance: Any) -> list[Any]:
    """An instance's security groups are those of its interface 0 (EC2 API, Instance); a terminated one has none."""
    if instance.state == "terminated":
        return []
    primary = getattr(instance, "nics", {}).get(0)
    return instance.__dict__.get("requested_groups", []) if primary is None else [*primary._group_set]


def _set_groups(instance: Any, groups: list[Any]) -> None:
    primary = getattr(instance, "nics", {}).get(0)
    if primary is None:  # before the interfaces exist
        instance.__dict__["requested_groups"] = groups
    else:  # ModifyInstanceAttribute changes the groups of interface 0
        primary._group_set = groups


Instance.security_groups = property(_get_groups, _set_groups)  # pyright: ignore[reportAttributeAccessIssue]


@correct_property(NetworkInterface, "group_set")
def get_interface_groups(interface: Any) -> list[Any]:
    """An interface has the groups that it was given; moto adds those of the instance."""
    return interface._group_set


@correct_property(Instance, "network_interfaces")
def list_interfaces(instance: Any) -> list[Any]:
    """A terminated instance has no interfaces (EC2 User Guide, "Terminate instances")."""
    return [] if instance.state == "terminated" else [*instance.nics.values()]


# ---- instance profiles


def find_profile(backend: Any, name: str | None, arn: str | None) -> InstanceProfile:
    """EC2 returns InvalidParameterValue for a profile that does not exist, or has no role (provider issue 27516)."""
    iam = iam_backends[backend.account_id][backend.partition]
    try:
        profile = iam.get_instance_profile(name) if name else iam.get_instance_profile_by_arn(arn or "")
    except NotFoundException:
        parameter, value = ("name", name) if name else ("arn", arn)
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter iamInstanceProfile.{parameter} is invalid. Invalid IAM Instance Profile {parameter}",
        ) from None
    if not profile.roles:
        raise EC2ClientError(
            "InvalidParameterValue", f'IAM Instance Profile "{profile.arn}" has no associated IAM Roles'
        )
    return profile


@correct(InstanceResponse, "run_instances")
def check_instance_profile(run: Any, response: Any) -> Any:
    """As `find_profile`: moto returns an error of IAM."""
    name, arn = (response._get_param(f"IamInstanceProfile.{key}") for key in ("Name", "Arn"))
    if name or arn:
        find_profile(response.ec2_backend, name, arn)
    return run(response)


@correct(IamInstanceProfileAssociation, "__init__")
def describe_profile(init: Any, association: Any, *args: Any, **properties: Any) -> None:
    """DescribeInstances returns the ARN and the id of the profile (EC2 API, IamInstanceProfile); moto the id of the association."""
    init(association, *args, **properties)
    profile = association.iam_instance_profile
    association.instance.iam_instance_profile = {"Arn": profile.arn, "Id": profile.id}


@correct(IamInstanceProfileAssociationBackend, "associate_iam_instance_profile")
def associate_profile(
    associate: Any,
    backend: Any,
    instance_id: str,
    iam_instance_profile_name: str | None = None,
    iam_instance_profile_arn: str | None = None,
) -> Any:
    """As `find_profile`: moto returns an error of IAM."""
    find_profile(backend, iam_instance_profile_name, iam_instance_profile_arn)
    return associate(backend, instance_id, iam_instance_profile_name, iam_instance_profile_arn)


@correct(IamInstanceProfileAssociationBackend, "replace_iam_instance_profile_association")
def replace_profile(
    replace: Any,
    backend: Any,
    association_id: str,
    iam_instance_profile_name: str | None = None,
    iam_instance_profile_arn: str | None = None,
) -> Any:
    """The replacement is a new association, and the instance shows the new profile (EC2 API); moto shows the first one."""
    profile = find_profile(backend, iam_instance_profile_name, iam_instance_profile_arn)
    association = replace(backend, association_id, iam_instance_profile_name, iam_instance_profile_arn)
    association.association_id = random_iam_instance_profile_association_id()
    association.instance.iam_instance_profile = {"Arn": profile.arn, "Id": profile.id}
    return association
