"""VPCs, subnets, gateways and routes."""

import zlib
from typing import Any

from sandbox.plugins.aws.client import AwsClient, describe_one, get_tags, tag_specifications
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import Properties, Value

VPC_ATTRIBUTES = {"enableDnsSupport": "EnableDnsSupport", "enableDnsHostnames": "EnableDnsHostnames"}
READ_VPC_ATTRIBUTES = {
    **VPC_ATTRIBUTES,
    "enableNetworkAddressUsageMetrics": "EnableNetworkAddressUsageMetrics",
}


def _create_vpc(client: AwsClient, inputs: Properties) -> str:
    created = client.ec2.create_vpc(
        CidrBlock=inputs["cidrBlock"],
        InstanceTenancy=inputs["instanceTenancy"],
        TagSpecifications=tag_specifications("vpc", client.merge_tags(inputs.get("tags"))),
    )
    return str(created["Vpc"]["VpcId"])


def _ready_vpc(client: AwsClient, vpc_id: str, inputs: Properties) -> None:
    client.ec2.get_waiter("vpc_available").wait(VpcIds=[vpc_id])
    _update_vpc(client, vpc_id, {}, inputs, set(VPC_ATTRIBUTES) & inputs.keys())


def _read_vpc(client: AwsClient, vpc_id: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: client.ec2.describe_vpcs(VpcIds=[vpc_id])["Vpcs"])
    if found is None:
        return None
    of_vpc = [{"Name": "vpc-id", "Values": [vpc_id]}]
    main = [*of_vpc, {"Name": "association.main", "Values": ["true"]}]
    default = [*of_vpc, {"Name": "group-name", "Values": ["default"]}]
    default_acl = [*of_vpc, {"Name": "default", "Values": ["true"]}]
    tables = client.ec2.describe_route_tables(Filters=main)["RouteTables"]
    groups = client.ec2.describe_security_groups(Filters=default)["SecurityGroups"]
    acls = client.ec2.describe_network_acls(Filters=default_acl)["NetworkAcls"]
    attributes = {
        name: client.ec2.describe_vpc_attribute(VpcId=vpc_id, Attribute=name)[api_name]["Value"]
        for name, api_name in READ_VPC_ATTRIBUTES.items()
    }
    return {
        **attributes,
        "arn": client.arn(found["OwnerId"], f"vpc/{vpc_id}"),
        "cidrBlock": found["CidrBlock"],
        "defaultNetworkAclId": acls[0]["NetworkAclId"] if acls else "",
        "defaultRouteTableId": tables[0]["RouteTableId"] if tables else "",
        "defaultSecurityGroupId": groups[0]["GroupId"] if groups else "",
        "dhcpOptionsId": found["DhcpOptionsId"],
        "instanceTenancy": found["InstanceTenancy"],
        "mainRouteTableId": tables[0]["RouteTableId"] if tables else "",
        "ownerId": found["OwnerId"],
        "tags": get_tags(found),
    }


def _update_vpc(
    client: AwsClient, vpc_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    for name in sorted(changed & VPC_ATTRIBUTES.keys(), reverse=True):  # host names require DNS support
        value = {"Value": bool(inputs.get(name))}
        client.ec2.modify_vpc_attribute(VpcId=vpc_id, **{VPC_ATTRIBUTES[name]: value})
        client.wait(
            f"EC2 VPC ({vpc_id}) attribute {name}",
            lambda name=name, value=value: (
                client.ec2.describe_vpc_attribute(VpcId=vpc_id, Attribute=name)[VPC_ATTRIBUTES[name]] == value
            ),
        )


VPC = AwsResourceType(
    token="aws:ec2/vpc:Vpc",
    label="EC2 VPC",
    required=frozenset({"cidrBlock"}),
    replace_on_change=frozenset({"cidrBlock", "instanceTenancy"}),
    update_on_change=frozenset({"enableDnsSupport", "enableDnsHostnames"}),
    chosen_by_aws=frozenset({"enableDnsHostnames"}),
    defaults={"enableDnsSupport": True, "instanceTenancy": "default"},
    outputs=frozenset(
        {
            "arn", "defaultNetworkAclId", "defaultRouteTableId", "defaultSecurityGroupId", "dhcpOptionsId",
            "enableNetworkAddressUsageMetrics", "mainRouteTableId", "ownerId",
        }
    ),
    create=_create_vpc,
    finish_create=_ready_vpc,
    read=_read_vpc,
    update=_update_vpc,
    delete=lambda client, vpc_id, _: client.delete_when_unused("EC2 VPC", lambda: client.ec2.delete_vpc(VpcId=vpc_id)),
)  # fmt: skip


def _create_subnet(client: AwsClient, inputs: Properties) -> str:
    zone = {"AvailabilityZone": inputs["availabilityZone"]} if "availabilityZone" in inputs else {}
    created = client.ec2.create_subnet(
        VpcId=inputs["vpcId"],
        CidrBlock=inputs["cidrBlock"],
        TagSpecifications=tag_specifications("subnet", client.merge_tags(inputs.get("tags"))),
        **zone,
    )
    return str(created["Subnet"]["SubnetId"])


def _ready_subnet(client: AwsClient, subnet_id: str, inputs: Properties) -> None:
    client.ec2.get_waiter("subnet_available").wait(SubnetIds=[subnet_id])
    if inputs["mapPublicIpOnLaunch"]:
        _update_subnet(client, subnet_id, {}, inputs, {"mapPublicIpOnLaunch"})


def _read_subnet(client: AwsClient, subnet_id: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: client.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"])
    return None if found is None else subnet_properties(found)


def subnet_properties(found: dict[str, Any]) -> Properties:
    return {
        "arn": found["SubnetArn"],
        "availabilityZone": found["AvailabilityZone"],
        "availabilityZoneId": found["AvailabilityZoneId"],
        "cidrBlock": found["CidrBlock"],
        "mapPublicIpOnLaunch": found["MapPublicIpOnLaunch"],
        "ownerId": found["OwnerId"],
        "tags": get_tags(found),
        "vpcId": found["VpcId"],
    }


def _update_subnet(
    client: AwsClient, subnet_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "mapPublicIpOnLaunch" in changed:
        value = {"Value": bool(inputs.get("mapPublicIpOnLaunch"))}
        client.ec2.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch=value)
        client.wait(
            f"EC2 Subnet ({subnet_id}) to assign public addresses as set",
            lambda: (
                client.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]["MapPublicIpOnLaunch"]
                == value["Value"]
            ),
        )


def _delete_subnet(client: AwsClient, subnet_id: str, state: Properties) -> None:
    of_subnet = [{"Name": "subnet-id", "Values": [subnet_id]}]
    client.ec2.describe_network_interfaces(
        Filters=of_subnet
    )  # the official provider deletes those of other services
    client.delete_when_unused("EC2 Subnet", lambda: client.ec2.delete_subnet(SubnetId=subnet_id))


SUBNET = AwsResourceType(
    token="aws:ec2/subnet:Subnet",
    label="EC2 Subnet",
    required=frozenset({"vpcId", "cidrBlock"}),
    replace_on_change=frozenset({"vpcId", "cidrBlock", "availabilityZone"}),
    update_on_change=frozenset({"mapPublicIpOnLaunch"}),
    chosen_by_aws=frozenset({"availabilityZone"}),
    defaults={"mapPublicIpOnLaunch": False},
    outputs=frozenset({"arn", "availabilityZoneId", "ownerId"}),
    create=_create_subnet,
    finish_create=_ready_subnet,
    read=_read_subnet,
    update=_update_subnet,
    delete=_delete_subnet,
)


def _create_gateway(client: AwsClient, inputs: Properties) -> str:
    tags = tag_specifications("internet-gateway", client.merge_tags(inputs.get("tags")))
    created = client.ec2.create_internet_gateway(TagSpecifications=tags)
    return str(created["InternetGateway"]["InternetGatewayId"])


def _attach_gateway(client: AwsClient, gateway_id: str, inputs: Properties) -> None:
    if "vpcId" in inputs:
        client.ec2.attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=inputs["vpcId"])
        client.wait(
            f"EC2 Internet Gateway ({gateway_id}) to be attached",
            lambda: (
                [
                    attachment["State"]
                    for attachment in client.ec2.describe_internet_gateways(InternetGatewayIds=[gateway_id])[
                        "InternetGateways"
                    ][0]["Attachments"]
                ]
                == ["available"]
            ),
        )


def _read_gateway(client: AwsClient, gateway_id: str, known: Properties) -> Properties | None:
    found = describe_one(
        lambda: client.ec2.describe_internet_gateways(InternetGatewayIds=[gateway_id])["InternetGateways"]
    )
    if found is None:
        return None
    attachments = found.get("Attachments", [])
    return {
        "arn": client.arn(found["OwnerId"], f"internet-gateway/{gateway_id}"),
        "ownerId": found["OwnerId"],
        "tags": get_tags(found),
        "vpcId": attachments[0]["VpcId"] if attachments else "",
    }


def _detach_gateway(client: AwsClient, gateway_id: str, vpc_id: Value) -> None:
    if vpc_id:
        client.delete_when_unused(
            "EC2 Internet Gateway",
            lambda: client.ec2.detach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id),
        )


def _update_gateway(
    client: AwsClient, gateway_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "vpcId" in changed:
        _detach_gateway(client, gateway_id, state.get("vpcId"))
        _attach_gateway(client, gateway_id, inputs)


def _delete_gateway(client: AwsClient, gateway_id: str, state: Properties) -> None:
    _detach_gateway(client, gateway_id, state.get("vpcId"))
    client.delete_when_unused(
        "EC2 Internet Gateway", lambda: client.ec2.delete_internet_gateway(InternetGatewayId=gateway_id)
    )


INTERNET_GATEWAY = AwsResourceType(
    token="aws:ec2/internetGateway:InternetGateway",
    label="EC2 Internet Gateway",
    update_on_change=frozenset({"vpcId"}),
    chosen_by_aws=frozenset({"vpcId"}),
    outputs=frozenset({"arn", "ownerId"}),
    create=_create_gateway,
    finish_create=_attach_gateway,
    read=_read_gateway,
    update=_update_gateway,
    delete=_delete_gateway,
)


def _create_table(client: AwsClient, inputs: Properties) -> str:
    tags = tag_specifications("route-table", client.merge_tags(inputs.get("tags")))
    created = client.ec2.create_route_table(VpcId=inputs["vpcId"], TagSpecifications=tags)
    return str(created["RouteTable"]["RouteTableId"])


def _table(client: AwsClient, table_id: object) -> dict[str, Any] | None:
    return describe_one(lambda: client.ec2.describe_route_tables(RouteTableIds=[table_id])["RouteTables"])


def _read_table(client: AwsClient, table_id: str, known: Properties) -> Properties | None:
    found = _table(client, table_id)
    return found and {
        "arn": client.arn(found["OwnerId"], f"route-table/{table_id}"),
        "ownerId": found["OwnerId"],
        "tags": get_tags(found),
        "vpcId": found["VpcId"],
    }


ROUTE_TABLE = AwsResourceType(
    token="aws:ec2/routeTable:RouteTable",
    label="EC2 Route Table",
    required=frozenset({"vpcId"}),
    replace_on_change=frozenset({"vpcId"}),
    outputs=frozenset({"arn", "ownerId"}),
    create=_create_table,
    read=_read_table,
    delete=lambda client, table_id, _: client.delete_when_unused(
        "EC2 Route Table", lambda: client.ec2.delete_route_table(RouteTableId=table_id)
    ),
)


def _create_route(client: AwsClient, inputs: Properties) -> str:
    destination = str(inputs["destinationCidrBlock"])
    client.ec2.create_route(
        RouteTableId=inputs["routeTableId"], DestinationCidrBlock=destination, GatewayId=inputs["gatewayId"]
    )
    return f"r-{inputs['routeTableId']}{zlib.crc32(destination.encode())}"


def _read_route(client: AwsClient, route_id: str, known: Properties) -> Properties | None:
    for route in (_table(client, known["routeTableId"]) or {}).get("Routes", []):
        if route.get("DestinationCidrBlock") == known["destinationCidrBlock"]:
            return {
                "gatewayId": route.get("GatewayId", ""),
                "origin": route["Origin"],
                "state": route["State"],
            }
    return None


def _wait_for_route(client: AwsClient, route_id: str, inputs: Properties) -> None:
    client.wait(
        f"EC2 Route ({route_id}) to be active",
        lambda: (_read_route(client, route_id, inputs) or {}).get("state") == "active",
    )


def _update_route(
    client: AwsClient, route_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    client.ec2.replace_route(
        RouteTableId=inputs["routeTableId"],
        DestinationCidrBlock=inputs["destinationCidrBlock"],
        GatewayId=inputs["gatewayId"],
    )


ROUTE = AwsResourceType(
    token="aws:ec2/route:Route",
    label="EC2 Route",
    required=frozenset({"routeTableId", "destinationCidrBlock", "gatewayId"}),
    replace_on_change=frozenset({"routeTableId", "destinationCidrBlock"}),
    update_on_change=frozenset({"gatewayId"}),
    taggable=False,
    outputs=frozenset({"origin", "state"}),
    create=_create_route,
    finish_create=_wait_for_route,
    read=_read_route,
    update=_update_route,
    delete=lambda client, _, state: client.delete_when_unused(
        "EC2 Route",
        lambda: client.ec2.delete_route(
            RouteTableId=state["routeTableId"], DestinationCidrBlock=state["destinationCidrBlock"]
        ),
    ),
)


def _create_association(client: AwsClient, inputs: Properties) -> str:
    created = client.ec2.associate_route_table(
        RouteTableId=inputs["routeTableId"], SubnetId=inputs["subnetId"]
    )
    return str(created["AssociationId"])


def _association(client: AwsClient, subnet_id: object) -> dict[str, Any] | None:
    """Returns the association of a subnet. Its id changes with the route table, so the subnet identifies it."""
    of_subnet = [{"Name": "association.subnet-id", "Values": [subnet_id]}]
    for table in client.ec2.describe_route_tables(Filters=of_subnet)["RouteTables"]:
        for association in table["Associations"]:
            if association.get("SubnetId") == subnet_id:
                return dict(association)
    return None


def _read_association(client: AwsClient, association_id: str, known: Properties) -> Properties | None:
    found = _association(client, known["subnetId"])
    return found and {"routeTableId": found["RouteTableId"], "subnetId": found["SubnetId"]}


def _wait_for_association(client: AwsClient, association_id: str, inputs: Properties) -> None:
    def is_associated() -> bool:
        found = _association(client, inputs["subnetId"])
        return found is not None and found["AssociationState"]["State"] == "associated"

    client.wait(f"EC2 Route Table Association ({association_id}) to be associated", is_associated)


def _update_association(
    client: AwsClient, association_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if found := _association(client, inputs["subnetId"]):
        client.ec2.replace_route_table_association(
            AssociationId=found["RouteTableAssociationId"], RouteTableId=inputs["routeTableId"]
        )


def _delete_association(client: AwsClient, association_id: str, state: Properties) -> None:
    if found := _association(client, state["subnetId"]):
        client.ec2.disassociate_route_table(AssociationId=found["RouteTableAssociationId"])


ROUTE_TABLE_ASSOCIATION = AwsResourceType(
    token="aws:ec2/routeTableAssociation:RouteTableAssociation",
    label="EC2 Route Table Association",
    required=frozenset({"routeTableId", "subnetId"}),
    replace_on_change=frozenset({"subnetId"}),
    update_on_change=frozenset({"routeTableId"}),
    taggable=False,
    create=_create_association,
    finish_create=_wait_for_association,
    read=_read_association,
    update=_update_association,
    delete=_delete_association,
)
