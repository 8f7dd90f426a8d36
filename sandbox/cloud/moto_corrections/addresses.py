"""Public addresses: those that AWS assigns to running instances, and Elastic IPs."""

import itertools
from ipaddress import IPv4Network
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface

from sandbox.cloud import addresses
from sandbox.cloud.moto_corrections import quotas
from sandbox.cloud.moto_corrections.correction import correct, correct_property

POOL = itertools.cycle([str(address) for address in IPv4Network(addresses.PUBLIC).hosts()])


@correct(elastic_ip_addresses, "random_ip")
@correct(elastic_network_interfaces, "random_public_ip")
def draw_address(_: Any) -> str:
    """Public addresses come from the sandbox's range, each once; moto draws at random from the whole internet."""
    backend = ec2_backends[addresses.ACCOUNT][addresses.REGION]
    taken = {item.public_ip for item in (*backend.addresses, *backend.enis.values())}
    return next(address for address in itertools.islice(POOL, 254) if address not in taken)


def _find_elastic_ip(interface: Any) -> Any:
    return next((item for item in interface.ec2_backend.addresses if item.eni is interface), None)


@correct(NetworkInterface, "stop")
def release_assigned_address(_: Any, interface: Any) -> None:
    """A stopped instance loses the public address that AWS assigned, and keeps an Elastic IP (EC2 User Guide, "IP addressing")."""
    if _find_elastic_ip(interface) is None:
        interface.public_ip = None


@correct(NetworkInterface, "start")
def assign_address(start: Any, interface: Any) -> None:
    """A started instance gets another public address, unless it has an Elastic IP (EC2 User Guide, "IP addressing")."""
    if _find_elastic_ip(interface) is None:
        start(interface)


_association: Any = NetworkInterface.association


def _describe_association(interface: Any) -> dict[str, Any] | None:
    """An interface without public address has no `Association`; moto's is empty, but present (provider issue 33775)."""
    return _association.fget(interface) or None


NetworkInterface.association = property(_describe_association)  # pyright: ignore[reportAttributeAccessIssue]


@correct_property(ElasticAddress, "instance_id")
def get_instance_id(address: Any) -> str | None:
    """DescribeAddresses returns no instance for a free address (EC2 API, Address); moto an empty id."""
    return address.instance.id if address.instance else None


@correct_property(ElasticAddress, "network_interface_id")
def get_interface_id(address: Any) -> str | None:
    """DescribeAddresses returns no interface for a free address (EC2 API, Address); moto an empty id."""
    return address.eni.id if address.eni else None


@correct(ElasticAddressBackend, "allocate_address")
def limit_addresses(allocate: Any, backend: Any, *args: Any, **options: Any) -> Any:
    """AllocateAddress returns AddressLimitExceeded beyond the account's quota (EC2 API error codes)."""
    if len(backend.addresses) >= quotas.ELASTIC_IPS:
        raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    return allocate(backend, *args, **options)


@correct(ElasticAddressBackend, "associate_address")
def associate(
    associate: Any,
    backend: Any,
    instance: Any = None,
    eni: Any = None,
    address: str | None = None,
    allocation_id: str | None = None,
    reassociate: bool = False,
) -> Any:
    """AssociateAddress refuses an associated address without AllowReassociation, and replaces the interface's other address.

    Resource.AlreadyAssociated: NixOS/nixops-aws pull request 143. The API reference says that reassociation is
    automatic; the sandbox gives the stricter answer. A VPC without internet gateway: Gateway.NotAttached (EC2 API error codes).
    """
    (found,) = (
        backend.address_by_ip([address]) if address else backend.address_by_allocation([allocation_id or ""])
    )
    if instance is not None and instance.state == "terminated":
        raise EC2ClientError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a valid state for this operation.",
        )
    target: Any = eni if instance is None else instance.nics[0]
    if found.eni not in (None, target) and not reassociate:
        raise EC2ClientError(
            "Resource.AlreadyAssociated",
            f"resource {found.allocation_id} is already associated with associate-id {found.association_id}",
        )
    if not any(
        gateway.vpc and gateway.vpc.id == target.vpc_id for gateway in backend.internet_gateways.values()
    ):
        raise EC2ClientError(
            "Gateway.NotAttached", f"Network {target.vpc_id} is not attached to any internet gateway"
        )
    if found.eni is target:
        return found
    if found.eni is not None:
        backend.disassociate_address(address=found.public_ip)
    if other := _find_elastic_ip(target):
        other.instance = other.eni = other.association_id = None
    return associate(
        backend, instance=instance or target.instance, eni=eni, address=found.public_ip, reassociate=True
    )


@correct(ElasticAddressBackend, "release_address")
def refuse_used_address(
    release: Any, backend: Any, address: str | None = None, allocation_id: str | None = None
) -> None:
    """ReleaseAddress returns InvalidIPAddress.InUse while the address is associated (EC2 API, ReleaseAddress)."""
    (found,) = (
        backend.address_by_ip([address]) if address else backend.address_by_allocation([allocation_id or ""])
    )
    if found.association_id:
        raise EC2ClientError(
            "InvalidIPAddress.InUse",
            f"The address with allocation id [{found.allocation_id}] cannot be released because it is in use",
        )
    release(backend, address=found.public_ip)
