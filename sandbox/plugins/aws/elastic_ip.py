"""Elastic IP addresses and what they are associated with."""

from typing import Any

from sandbox.plugins.aws.client import Cloud, described, refusal, renamed, tag_specifications, tags_of
from sandbox.plugins.aws.resource_type import Kind
from sandbox.plugins.properties import Properties


def _create_address(cloud: Cloud, inputs: Properties) -> str:
    tags = tag_specifications("elastic-ip", inputs.get("tags"))
    return str(cloud.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["AllocationId"])


def _associate(cloud: Cloud, allocation_id: str, inputs: Properties) -> None:
    if "instance" in inputs:
        cloud.ec2.associate_address(
            AllocationId=allocation_id, InstanceId=inputs["instance"], AllowReassociation=True
        )


def _address(cloud: Cloud, **query: Any) -> dict[str, Any] | None:
    return described(lambda: cloud.ec2.describe_addresses(**query)["Addresses"])


def _read_address(cloud: Cloud, allocation_id: str, known: Properties) -> Properties | None:
    found = _address(cloud, AllocationIds=[allocation_id])
    if found is None:
        return None
    public, private = found["PublicIp"], found.get("PrivateIpAddress", "")
    return {
        "allocationId": allocation_id,
        "arn": cloud.arn(cloud.account, f"elastic-ip/{allocation_id}"),
        "associationId": found.get("AssociationId", ""),
        "domain": found["Domain"],
        "instance": found.get("InstanceId", ""),
        "networkInterface": found.get("NetworkInterfaceId", ""),
        "privateDns": f"ip-{private.replace('.', '-')}.{cloud.region}.compute.internal" if private else None,
        "privateIp": private,
        "publicDns": f"ec2-{public.replace('.', '-')}.{cloud.region}.compute.amazonaws.com",
        "publicIp": public,
        "tags": tags_of(found),
    }


def _update_address(
    cloud: Cloud, allocation_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "instance" in changed:
        _disassociate(cloud, str(state.get("associationId") or ""))
        _associate(cloud, allocation_id, inputs)


def _disassociate(cloud: Cloud, association_id: str) -> None:
    if association_id:
        cloud.when_free("EC2 EIP", lambda: cloud.ec2.disassociate_address(AssociationId=association_id))


def _delete_address(cloud: Cloud, allocation_id: str, state: Properties) -> None:
    if found := _address(cloud, AllocationIds=[allocation_id]):
        association = found.get("AssociationId", "")
        if association and association != state.get("associationId"):
            # The original ends the association that it knows of and no other, and then AWS refuses; moto would not.
            raise refusal(
                "ReleaseAddress",
                "InvalidIPAddress.InUse",
                f"The address with allocation id [{allocation_id}] cannot be released because it is in use",
            )
        _disassociate(cloud, association)
        cloud.when_free("EC2 EIP", lambda: cloud.ec2.release_address(AllocationId=allocation_id))


EIP = Kind(
    token="aws:ec2/eip:Eip",
    called="EC2 EIP",
    replacing=frozenset({"domain"}),
    in_place=frozenset({"instance"}),
    chosen=frozenset({"domain", "instance"}),
    outputs=frozenset(
        {
            "allocationId", "arn", "associationId", "networkInterface", "privateDns", "privateIp", "publicDns",
            "publicIp",
        }
    ),
    create=_create_address,
    ready=_associate,
    read=_read_address,
    update=_update_address,
    delete=_delete_address,
)  # fmt: skip

ASSOCIATION = {
    "allocationId": "AllocationId",
    "instanceId": "InstanceId",
    "networkInterfaceId": "NetworkInterfaceId",
    "privateIpAddress": "PrivateIpAddress",
}


def _create_association(cloud: Cloud, inputs: Properties) -> str:
    # In a VPC an address moves freely from one machine to the next; so AWS has it by default, but not moto.
    request = {"AllowReassociation": True, **renamed(inputs, ASSOCIATION)}
    return str(cloud.ec2.associate_address(**request)["AssociationId"])


def _read_association(cloud: Cloud, association_id: str, known: Properties) -> Properties | None:
    found = _address(cloud, Filters=[{"Name": "association-id", "Values": [association_id]}])
    return found and {
        "allocationId": found["AllocationId"],
        "instanceId": found.get("InstanceId", ""),
        "networkInterfaceId": found.get("NetworkInterfaceId", ""),
        "privateIpAddress": found.get("PrivateIpAddress", ""),
        "publicIp": found["PublicIp"],
    }


EIP_ASSOCIATION = Kind(
    token="aws:ec2/eipAssociation:EipAssociation",
    called="EC2 EIP Association",
    replacing=frozenset(ASSOCIATION) | {"allowReassociation"},
    chosen=frozenset(ASSOCIATION),
    taggable=False,
    outputs=frozenset({"publicIp"}),
    create=_create_association,
    read=_read_association,
    delete=lambda cloud, association_id, _: _disassociate(cloud, association_id),
)
