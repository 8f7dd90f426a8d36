"""VPCs, subnets, gateways and routes."""

import zlib
from typing import Any

from sandbox.plugins.aws.client import Cloud, described, tag_specifications, tags_of
from sandbox.plugins.aws.resource_type import Kind
from sandbox.plugins.properties import Properties, Value

VPC_ATTRIBUTES = {"enableDnsSupport": "EnableDnsSupport", "enableDnsHostnames": "EnableDnsHostnames"}


def _create_vpc(cloud: Cloud, inputs: Properties) -> str:
    created = cloud.ec2.create_vpc(
        CidrBlock=inputs["cidrBlock"],
        InstanceTenancy=inputs["instanceTenancy"],
        TagSpecifications=tag_specifications("vpc", inputs.get("tags")),
    )
    return str(created["Vpc"]["VpcId"])


def _ready_vpc(cloud: Cloud, vpc_id: str, inputs: Properties) -> None:
    cloud.ec2.get_waiter("vpc_available").wait(VpcIds=[vpc_id])
    _update_vpc(cloud, vpc_id, {}, inputs, set(VPC_ATTRIBUTES) & inputs.keys())


def _read_vpc(cloud: Cloud, vpc_id: str, known: Properties) -> Properties | None:
    found = described(lambda: cloud.ec2.describe_vpcs(VpcIds=[vpc_id])["Vpcs"])
    if found is None:
        return None
    of_vpc = [{"Name": "vpc-id", "Values": [vpc_id]}]
    main = [*of_vpc, {"Name": "association.main", "Values": ["true"]}]
    default = [*of_vpc, {"Name": "group-name", "Values": ["default"]}]
    default_acl = [*of_vpc, {"Name": "default", "Values": ["true"]}]
    tables = cloud.ec2.describe_route_tables(Filters=main)["RouteTables"]
    groups = cloud.ec2.describe_security_groups(Filters=default)["SecurityGroups"]
    acls = cloud.ec2.describe_network_acls(Filters=default_acl)["NetworkAcls"]
    attributes = {
        name: cloud.ec2.describe_vpc_attribute(VpcId=vpc_id, Attribute=name)[theirs]["Value"]
        for name, theirs in VPC_ATTRIBUTES.items()
    }
    return {
        **attributes,
        "arn": cloud.arn(found["OwnerId"], f"vpc/{vpc_id}"),
        "cidrBlock": found["CidrBlock"],
        "defaultNetworkAclId": acls[0]["NetworkAclId"] if acls else "",
        "defaultRouteTableId": tables[0]["RouteTableId"] if tables else "",
        "defaultSecurityGroupId": groups[0]["GroupId"] if groups else "",
        "dhcpOptionsId": found["DhcpOptionsId"],
        "instanceTenancy": found["InstanceTenancy"],
        "mainRouteTableId": tables[0]["RouteTableId"] if tables else "",
        "ownerId": found["OwnerId"],
        "tags": tags_of(found),
    }


def _update_vpc(cloud: Cloud, vpc_id: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    for name in sorted(changed & VPC_ATTRIBUTES.keys(), reverse=True):  # host names need DNS support first
        value = {"Value": bool(inputs.get(name))}
        cloud.ec2.modify_vpc_attribute(VpcId=vpc_id, **{VPC_ATTRIBUTES[name]: value})


VPC = Kind(
    token="aws:ec2/vpc:Vpc",
    called="EC2 VPC",
    required=frozenset({"cidrBlock"}),
    replacing=frozenset({"cidrBlock", "instanceTenancy"}),
    in_place=frozenset({"enableDnsSupport", "enableDnsHostnames"}),
    chosen=frozenset({"enableDnsHostnames"}),
    defaults={"enableDnsSupport": True, "instanceTenancy": "default"},
    outputs=frozenset(
        {
            "arn", "defaultNetworkAclId", "defaultRouteTableId", "defaultSecurityGroupId", "dhcpOptionsId",
            "mainRouteTableId", "ownerId",
        }
    ),
    create=_create_vpc,
    ready=_ready_vpc,
    read=_read_vpc,
    update=_update_vpc,
    delete=lambda cloud, vpc_id, _: cloud.when_free("EC2 VPC", lambda: cloud.ec2.delete_vpc(VpcId=vpc_id)),
)  # fmt: skip


def _create_subnet(cloud: Cloud, inputs: Properties) -> str:
    zone = {"AvailabilityZone": inputs["availabilityZone"]} if "availabilityZone" in inputs else {}
    created = cloud.ec2.create_subnet(
        VpcId=inputs["vpcId"],
        CidrBlock=inputs["cidrBlock"],
        TagSpecifications=tag_specifications("subnet", inputs.get("tags")),
        **zone,
    )
    return str(created["Subnet"]["SubnetId"])


def _ready_subnet(cloud: Cloud, subnet_id: str, inputs: Properties) -> None:
    cloud.ec2.get_waiter("subnet_available").wait(SubnetIds=[subnet_id])
    if inputs["mapPublicIpOnLaunch"]:
        _update_subnet(cloud, subnet_id, {}, inputs, {"mapPublicIpOnLaunch"})


def _read_subnet(cloud: Cloud, subnet_id: str, known: Properties) -> Properties | None:
    found = described(lambda: cloud.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"])
    return None if found is None else subnet_properties(found)


def subnet_properties(found: dict[str, Any]) -> Properties:
    return {
        "arn": found["SubnetArn"],
        "availabilityZone": found["AvailabilityZone"],
        "availabilityZoneId": found["AvailabilityZoneId"],
        "cidrBlock": found["CidrBlock"],
        "mapPublicIpOnLaunch": found["MapPublicIpOnLaunch"],
        "ownerId": found["OwnerId"],
        "tags": tags_of(found),
        "vpcId": found["VpcId"],
    }


def _update_subnet(
    cloud: Cloud, subnet_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "mapPublicIpOnLaunch" in changed:
        value = {"Value": bool(inputs.get("mapPublicIpOnLaunch"))}
        cloud.ec2.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch=value)


SUBNET = Kind(
    token="aws:ec2/subnet:Subnet",
    called="EC2 Subnet",
    required=frozenset({"vpcId", "cidrBlock"}),
    replacing=frozenset({"vpcId", "cidrBlock", "availabilityZone"}),
    in_place=frozenset({"mapPublicIpOnLaunch"}),
    chosen=frozenset({"availabilityZone"}),
    defaults={"mapPublicIpOnLaunch": False},
    outputs=frozenset({"arn", "availabilityZoneId", "ownerId"}),
    create=_create_subnet,
    ready=_ready_subnet,
    read=_read_subnet,
    update=_update_subnet,
    delete=lambda cloud, subnet_id, _: cloud.when_free(
        "EC2 Subnet", lambda: cloud.ec2.delete_subnet(SubnetId=subnet_id)
    ),
)


def _create_gateway(cloud: Cloud, inputs: Properties) -> str:
    tags = tag_specifications("internet-gateway", inputs.get("tags"))
    created = cloud.ec2.create_internet_gateway(TagSpecifications=tags)
    return str(created["InternetGateway"]["InternetGatewayId"])


def _attach_gateway(cloud: Cloud, gateway_id: str, inputs: Properties) -> None:
    if "vpcId" in inputs:
        cloud.ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=inputs["vpcId"])


def _read_gateway(cloud: Cloud, gateway_id: str, known: Properties) -> Properties | None:
    found = described(
        lambda: cloud.ec2.describe_internet_gateways(InternetGatewayIds=[gateway_id])["InternetGateways"]
    )
    if found is None:
        return None
    attachments = found.get("Attachments", [])
    return {
        "arn": cloud.arn(found["OwnerId"], f"internet-gateway/{gateway_id}"),
        "ownerId": found["OwnerId"],
        "tags": tags_of(found),
        "vpcId": attachments[0]["VpcId"] if attachments else "",
    }


def _detach_gateway(cloud: Cloud, gateway_id: str, vpc_id: Value) -> None:
    if vpc_id:
        cloud.when_free(
            "EC2 Internet Gateway",
            lambda: cloud.ec2.detach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id),
        )


def _update_gateway(
    cloud: Cloud, gateway_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "vpcId" in changed:
        _detach_gateway(cloud, gateway_id, state.get("vpcId"))
        _attach_gateway(cloud, gateway_id, inputs)


def _delete_gateway(cloud: Cloud, gateway_id: str, state: Properties) -> None:
    _detach_gateway(cloud, gateway_id, state.get("vpcId"))
    cloud.when_free(
        "EC2 Internet Gateway", lambda: cloud.ec2.delete_internet_gateway(InternetGatewayId=gateway_id)
    )


INTERNET_GATEWAY = Kind(
    token="aws:ec2/internetGateway:InternetGateway",
    called="EC2 Internet Gateway",
    in_place=frozenset({"vpcId"}),
    chosen=frozenset({"vpcId"}),
    outputs=frozenset({"arn", "ownerId"}),
    create=_create_gateway,
    ready=_attach_gateway,
    read=_read_gateway,
    update=_update_gateway,
    delete=_delete_gateway,
)


def _create_table(cloud: Cloud, inputs: Properties) -> str:
    tags = tag_specifications("route-table", inputs.get("tags"))
    created = cloud.ec2.create_route_table(VpcId=inputs["vpcId"], TagSpecifications=tags)
    return str(created["RouteTable"]["RouteTableId"])


def _table(cloud: Cloud, table_id: object) -> dict[str, Any] | None:
    return described(lambda: cloud.ec2.describe_route_tables(RouteTableIds=[table_id])["RouteTables"])


def _read_table(cloud: Cloud, table_id: str, known: Properties) -> Properties | None:
    found = _table(cloud, table_id)
    return found and {
        "arn": cloud.arn(found["OwnerId"], f"route-table/{table_id}"),
        "ownerId": found["OwnerId"],
        "tags": tags_of(found),
        "vpcId": found["VpcId"],
    }


ROUTE_TABLE = Kind(
    token="aws:ec2/routeTable:RouteTable",
    called="EC2 Route Table",
    required=frozenset({"vpcId"}),
    replacing=frozenset({"vpcId"}),
    outputs=frozenset({"arn", "ownerId"}),
    create=_create_table,
    read=_read_table,
    delete=lambda cloud, table_id, _: cloud.when_free(
        "EC2 Route Table", lambda: cloud.ec2.delete_route_table(RouteTableId=table_id)
    ),
)


def _create_route(cloud: Cloud, inputs: Properties) -> str:
    destination = str(inputs["destinationCidrBlock"])
    cloud.ec2.create_route(
        RouteTableId=inputs["routeTableId"], DestinationCidrBlock=destination, GatewayId=inputs["gatewayId"]
    )
    return f"r-{inputs['routeTableId']}{zlib.crc32(destination.encode())}"


def _read_route(cloud: Cloud, route_id: str, known: Properties) -> Properties | None:
    for route in (_table(cloud, known["routeTableId"]) or {}).get("Routes", []):
        if route.get("DestinationCidrBlock") == known["destinationCidrBlock"]:
            return {
                "gatewayId": route.get("GatewayId", ""),
                "origin": route["Origin"],
                "state": route["State"],
            }
    return None


def _update_route(
    cloud: Cloud, route_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    cloud.ec2.replace_route(
        RouteTableId=inputs["routeTableId"],
        DestinationCidrBlock=inputs["destinationCidrBlock"],
        GatewayId=inputs["gatewayId"],
    )


ROUTE = Kind(
    token="aws:ec2/route:Route",
    called="EC2 Route",
    required=frozenset({"routeTableId", "destinationCidrBlock", "gatewayId"}),
    replacing=frozenset({"routeTableId", "destinationCidrBlock"}),
    in_place=frozenset({"gatewayId"}),
    taggable=False,
    outputs=frozenset({"origin", "state"}),
    create=_create_route,
    read=_read_route,
    update=_update_route,
    delete=lambda cloud, _, state: cloud.when_free(
        "EC2 Route",
        lambda: cloud.ec2.delete_route(
            RouteTableId=state["routeTableId"], DestinationCidrBlock=state["destinationCidrBlock"]
        ),
    ),
)


def _create_association(cloud: Cloud, inputs: Properties) -> str:
    created = cloud.ec2.associate_route_table(
        RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"]
    )
    return str(created["AssociationId"])


def _association(cloud: Cloud, subnet_id: object) -> dict[str, Any] | None:
    """Found by its subnet, since an association gets a new id when its table is changed."""
    of_subnet = [{"Name": "association.subnet-id", "Values": [subnet_id]}]
    for table in cloud.ec2.describe_route_tables(Filters=of_subnet)["RouteTables"]:
        for association in table["Associations"]:
            if association.get("SubnetId") == subnet_id:
                return dict(association)
    return None


def _read_association(cloud: Cloud, association_id: str, known: Properties) -> Properties | None:
    found = _association(cloud, known["subnetId"])
    return found and {"routeTableId": found["RouteTableId"], "subnetId": found["SubnetId"]}


def _update_association(
    cloud: Cloud, association_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if found := _association(cloud, inputs["subnetId"]):
        cloud.ec2.replace_route_table_association(
            AssociationId=found["RouteTableAssociationId"], RouteTableId=inputs["routeTableId"]
        )


def _delete_association(cloud: Cloud, association_id: str, state: Properties) -> None:
    if found := _association(cloud, state["subnetId"]):
        cloud.ec2.disassociate_route_table(AssociationId=found["RouteTableAssociationId"])


ROUTE_TABLE_ASSOCIATION = Kind(
    token="aws:ec2/routeTableAssociation:RouteTableAssociation",
    called="EC2 Route Table Association",
    required=frozenset({"routeTableId", "subnetId"}),
    replacing=frozenset({"subnetId"}),
    in_place=frozenset({"routeTableId"}),
    taggable=False,
    create=_create_association,
    read=_read_association,
    update=_update_association,
    delete=_delete_association,
)
