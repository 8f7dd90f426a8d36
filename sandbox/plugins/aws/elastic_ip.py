"""Elastic IP addresses and their associations."""

from typing import Any

from sandbox.plugins.aws.client import (
    AwsClient,
    describe_one,
    get_tags,
    tag_specifications,
)
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import Properties


def _create_address(client: AwsClient, inputs: Properties) -> str:
    tags = tag_specifications("elastic-ip", client.merge_tags(inputs.get("tags")))
    return str(client.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["AllocationId"])


def _address(client: AwsClient, **query: Any) -> dict[str, Any] | None:
    return describe_one(lambda: client.ec2.describe_addresses(**query)["Addresses"])


def _read_address(client: AwsClient, allocation_id: str, known: Properties) -> Properties | None:
    found = _address(client, AllocationIds=[allocation_id])
    if found is None:
        return None
    client.ec2.describe_addresses_attribute(AllocationIds=[allocation_id], Attribute="domain-name")
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


def _disassociate(client: AwsClient, association_id: object) -> None:
    if association_id:
        client.ignore_not_found(lambda: client.ec2.disassociate_address(AssociationId=association_id))


def _delete_address(client: AwsClient, allocation_id: str, state: Properties) -> None:
    # An association that the state does not have makes AWS refuse the release.
    _disassociate(client, state.get("associationId"))
    client.ignore_not_found(lambda: client.ec2.release_address(AllocationId=allocation_id))


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
    associated = client.ec2.associate_address(
        AllocationId=inputs["allocationId"], InstanceId=inputs["instanceId"]
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


def _wait_for_association(client: AwsClient, association_id: str, inputs: Properties) -> None:
    client.wait(
        f"EC2 EIP Association ({association_id}) to exist",
        lambda: (
            (_read_association(client, association_id, inputs) or {}).get("instanceId")
            == inputs["instanceId"]
        ),
    )


EIP_ASSOCIATION = AwsResourceType(
    token="aws:ec2/eipAssociation:EipAssociation",
    label="EC2 EIP Association",
    required=frozenset({"allocationId", "instanceId"}),
    replace_on_change=frozenset({"allocationId", "instanceId"}),
    taggable=False,
    outputs=frozenset({"networkInterfaceId", "privateIpAddress", "publicIp"}),
    create=_create_association,
    finish_create=_wait_for_association,
    read=_read_association,
    delete=lambda client, association_id, _: _disassociate(client, association_id),
)
