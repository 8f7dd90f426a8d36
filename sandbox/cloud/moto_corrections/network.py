"""VPCs, subnets, gateways, route tables and interfaces: AWS refuses to delete or detach what is in use."""

from typing import Any

from moto.ec2.exceptions import DependencyViolationError, EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
from moto.ec2.models.internet_gateways import InternetGatewayBackend
from moto.ec2.models.route_tables import RouteBackend
from moto.ec2.models.subnets import SubnetBackend
from moto.ec2.models.vpcs import VPCBackend

from sandbox.cloud.moto_corrections.correction import correct


@correct(SubnetBackend, "delete_subnet")
def delete_unused_subnet(delete: Any, backend: Any, subnet_id: str) -> Any:
    """DeleteSubnet returns DependencyViolation while the subnet has interfaces, and ends its associations (EC2 API)."""
    if any(interface.subnet.id == subnet_id for interface in backend.enis.values()):
        raise DependencyViolationError(f"The subnet '{subnet_id}' has dependencies and cannot be deleted.")
    deleted = delete(backend, subnet_id)
    for table in backend.route_tables.values():
        table._associations = {
            id: target for id, target in table._associations.items() if target != subnet_id
        }
    for acl in backend.network_acls.values():
        acl._associations = {
            id: association
            for id, association in acl._associations.items()
            if association.subnet_id != subnet_id
        }
    return deleted


@correct(InternetGatewayBackend, "detach_internet_gateway")
def detach_unused_gateway(detach: Any, backend: Any, internet_gateway_id: str, vpc_id: str) -> None:
    """DetachInternetGateway returns DependencyViolation while a machine of the VPC has a public address (hashicorp/terraform issue 497)."""
    if any(interface.public_ip and interface.vpc_id == vpc_id for interface in backend.enis.values()):
        raise DependencyViolationError(
            f"Network {vpc_id} has some mapped public address(es). "
            "Please unmap those public address(es) before detaching the gateway."
        )
    detach(backend, internet_gateway_id, vpc_id)


@correct(InternetGatewayBackend, "attach_internet_gateway")
def attach_only_gateway(attach: Any, backend: Any, internet_gateway_id: str, vpc_id: str) -> Any:
    """A VPC has at most one internet gateway: Resource.AlreadyAssociated (EC2 API error codes)."""
    for gateway in backend.internet_gateways.values():
        if gateway.vpc and gateway.vpc.id == vpc_id:
            raise EC2ClientError(
                "Resource.AlreadyAssociated", f"Network {vpc_id} already has an internet gateway attached"
            )
    return attach(backend, internet_gateway_id, vpc_id)


@correct(RouteBackend, "delete_route_table")
def keep_main_route_table(delete: Any, backend: Any, route_table_id: str) -> None:
    """DeleteRouteTable returns DependencyViolation for the main route table of a VPC (EC2 API)."""
    table = backend.route_tables.get(route_table_id)
    if table is not None and table.main_association_id is not None:
        raise DependencyViolationError(
            f"The routeTable '{route_table_id}' has dependencies and cannot be deleted."
        )
    delete(backend, route_table_id)


@correct(RouteBackend, "create_route")
def route_to_attached_gateway(
    create: Any, backend: Any, route_table_id: str, *args: Any, gateway_id: str | None = None, **target: Any
) -> Any:
    """CreateRoute returns InvalidParameterValue for an internet gateway of another VPC, or of none (EC2 API)."""
    gateway = backend.internet_gateways.get(gateway_id)
    table = backend.get_route_table(route_table_id)
    if gateway is not None and (gateway.vpc is None or gateway.vpc.id != table.vpc_id):
        raise EC2ClientError(
            "InvalidParameterValue",
            f"route table {route_table_id} and network gateway {gateway_id} belong to different networks",
        )
    return create(backend, route_table_id, *args, gateway_id=gateway_id, **target)


@correct(RouteBackend, "associate_route_table")
def associate_subnet_once(
    associate: Any,
    backend: Any,
    route_table_id: str,
    gateway_id: str | None = None,
    subnet_id: str | None = None,
) -> str:
    """AssociateRouteTable returns Resource.AlreadyAssociated for a subnet of another route table (EC2 API error codes)."""
    for table in backend.route_tables.values():
        if subnet_id and table.id != route_table_id and subnet_id in table._associations.values():
            raise EC2ClientError(
                "Resource.AlreadyAssociated",
                f"the specified association for route table {route_table_id} conflicts with an existing association",
            )
    return associate(backend, route_table_id, gateway_id, subnet_id)


@correct(NetworkInterfaceBackend, "delete_network_interface")
def delete_detached_interface(delete: Any, backend: Any, eni_id: str) -> None:
    """DeleteNetworkInterface returns InvalidParameterValue for an attached interface (gruntwork-io/cloud-nuke issue 431)."""
    interface = backend.enis.get(eni_id)
    if interface is not None and interface.status == "in-use":
        raise EC2ClientError("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
    delete(backend, eni_id)


@correct(VPCBackend, "delete_vpc")
def delete_empty_vpc(delete: Any, backend: Any, vpc_id: str) -> Any:
    """DeleteVpc returns DependencyViolation while the VPC has more than its defaults, which AWS deletes with it (EC2 API).

    The defaults are the main route table, the default network ACL and the default security group.
    """
    backend.get_vpc(vpc_id)
    tables = [table for table in backend.route_tables.values() if table.vpc_id == vpc_id]
    acls = [acl for acl in backend.network_acls.values() if acl.vpc_id == vpc_id]
    dependencies = (
        any(gateway.vpc and gateway.vpc.id == vpc_id for gateway in backend.internet_gateways.values()),
        any(not group.is_default for group in backend.groups[vpc_id].values()),
        any(interface.vpc_id == vpc_id for interface in backend.enis.values()),
        any(subnet.vpc_id == vpc_id for subnets in backend.subnets.values() for subnet in subnets.values()),
        any(table.main_association_id is None for table in tables),
        any(not acl.default for acl in acls),
    )
    if any(dependencies):
        raise DependencyViolationError(f"The vpc '{vpc_id}' has dependencies and cannot be deleted.")
    for table in tables:
        table.main_association_id = None
    backend.groups.pop(vpc_id)
    deleted = delete(backend, vpc_id)
    for acl in acls:
        backend.network_acls.pop(acl.id)
    return deleted
