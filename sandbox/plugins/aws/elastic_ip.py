"""Elastic IP addresses and their associations."""

from typing import Any

from sandbox.plugins.aws.client import (
    AwsClient,
    api_error,
    describe_one,
    get_tags,
    tag_specifications,
)
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import Properties


def _create_address(client: AwsClient, inputs: Properties) -> str:
    tags = tag_specifications("elastic-ip", inputs.get("tags"))
    return str(client.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["AllocationId"])


def _address(client: AwsClient, **query: Any) -> dict[str, Any] | None:
    return describe_one(lambda: client.ec2.describe_addresses(**query)["Addresses"])


def _read_address(client: AwsClient, allocation_id: str, known: Properties) -> Properties | None:
    found = _address(client, AllocationIds=[allocation_id])
    if found is None:
        return None
    public, private = found["PublicIp"], found.get("PrivateIpAddress", "")
    return {
        "allocationId": allocation_id,
        "arn": client.arn(client.account, f"elastic-ip/{allocation_id}"),
        "associationId": found.get("AssociationId", ""),
        "domain": found["Domain"],
        "instance": found.get("InstanceId", ""),
        "networkInterface": found.get("NetworkInterfaceId", ""),
        "privateDns": f"ip-{private.replace('.', '-')}.{client.region}.compute.internal" if private else None,
        "privateIp": private,
        "publicDns": f"ec2-{public.replace('.', '-')}.{client.region}.compute.amazonaws.com",
        "publicIp": public,
        "tags": get_tags(found),
    }


def _disassociate(client: AwsClient, association_id: str) -> None:
    if association_id:
        client.delete_when_unused(
            "EC2 EIP", lambda: client.ec2.disassociate_address(AssociationId=association_id)
        )


def _delete_address(client: AwsClient, allocation_id: str, state: Properties) -> None:
    if found := _address(client, AllocationIds=[allocation_id]):
        association = found.get("AssociationId", "")
        if association and association != state.get("associationId"):
            # The official provider removes only the association in the state, and AWS then refuses the release. moto releases.
            raise api_error(
                "ReleaseAddress",
                "InvalidIPAddress.InUse",
                f"The address with allocation id [{allocation_id}] cannot be released because it is in use",
            )
        _disassociate(client, association)
        client.delete_when_unused("EC2 EIP", lambda: client.ec2.release_address(AllocationId=allocation_id))


EIP = AwsResourceType(
    token="aws:ec2/eip:Eip",
    label="EC2 EIP",
    replace_on_change=frozenset({"domain"}),
    chosen_by_aws=frozenset({"domain"}),
    outputs=frozenset(
        {
            "allocationId", "arn", "associationId", "instance", "networkInterface", "privateDns", "privateIp",
            "publicDns", "publicIp",
        }
    ),
    create=_create_address,
    read=_read_address,
    delete=_delete_address,
)  # fmt: skip


def _create_association(client: AwsClient, inputs: Properties) -> str:
    # In a VPC, AWS allows reassociation by default. moto does not.
    associated = client.ec2.associate_address(
        AllocationId=inputs["allocationId"], InstanceId=inputs["instanceId"], AllowReassociation=True
    )
    return str(associated["AssociationId"])


def _read_association(client: AwsClient, association_id: str, known: Properties) -> Properties | None:
    found = _address(client, Filters=[{"Name": "association-id", "Values": [association_id]}])
    return found and {
        "allocationId": found["AllocationId"],
        "instanceId": found.get("InstanceId", ""),
        "networkInterfaceId": found.get("NetworkInterfaceId", ""),
        "privateIpAddress": found.get("PrivateIpAddress", ""),
        "publicIp": found["PublicIp"],
    }


EIP_ASSOCIATION = AwsResourceType(
    token="aws:ec2/eipAssociation:EipAssociation",
    label="EC2 EIP Association",
    required=frozenset({"allocationId", "instanceId"}),
    replace_on_change=frozenset({"allocationId", "instanceId"}),
    taggable=False,
    outputs=frozenset({"networkInterfaceId", "privateIpAddress", "publicIp"}),
    create=_create_association,
    read=_read_association,
    delete=lambda client, association_id, _: _disassociate(client, association_id),
)
