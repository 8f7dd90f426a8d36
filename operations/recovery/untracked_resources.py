"""Looks an AWS resource up by what it was to become: for one whose creation was begun, and nobody saw the end of it."""

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import boto3
from botocore.exceptions import ClientError

Inputs = Mapping[str, Any]


class Account:
    """Where a provider's own inputs lead: its region, credentials and endpoints."""

    def __init__(self, provider: Inputs) -> None:
        # Everything that is not text stands as JSON in text.
        endpoints: list[dict[str, str]] = json.loads(provider.get("endpoints") or "[]")
        self._endpoints = {service: url for entry in endpoints for service, url in entry.items()}
        self._session: Any = boto3.Session(
            aws_access_key_id=provider.get("accessKey"),
            aws_secret_access_key=provider.get("secretKey"),
            aws_session_token=provider.get("token"),
            region_name=provider.get("region"),
            profile_name=provider.get("profile"),
        )

        self._clients: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self._clients:
            endpoint = self._endpoints.get(service)
            self._clients[service] = self._session.client(service, endpoint_url=endpoint)
        return self._clients[service]


def find(account: Account, type: str, inputs: Inputs) -> list[str]:
    """The ids of what there is of it, as the provider has ids."""
    if type not in FINDERS:
        return []
    try:
        return FINDERS[type](account, inputs)
    except ClientError as problem:
        code = str(cast(Any, problem).response["Error"]["Code"])
        if "NotFound" in code or code.startswith("NoSuch"):
            return []
        raise


def _tags(inputs: Inputs) -> list[dict[str, Any]]:
    tags: Mapping[str, str] = inputs.get("tags") or {}
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def _tagged(
    describe: str, kind: str, id: str, *more: tuple[str, str]
) -> Callable[[Account, Inputs], list[str]]:
    """By its tags, which it has from the moment that it is made, and by inputs that have a filter."""

    def finder(account: Account, inputs: Inputs) -> list[str]:
        tags = _tags(inputs)
        filters = [{"Name": name, "Values": [str(inputs[key])]} for key, name in more if key in inputs]
        if not tags:
            return []
        found = getattr(account("ec2"), describe)(Filters=[*tags, *filters])[kind]
        return [str(one[id]) for one in found]

    return finder


def _instances(account: Account, inputs: Inputs) -> list[str]:
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    found = account("ec2").describe_instances(Filters=[*_tags(inputs), *alive])["Reservations"]
    return [str(one["InstanceId"]) for reservation in found for one in reservation["Instances"]]


def _rules(egress: bool) -> Callable[[Account, Inputs], list[str]]:
    """All rules of a stack have the same tags."""

    def finder(account: Account, inputs: Inputs) -> list[str]:
        of_group = [{"Name": "group-id", "Values": [inputs["securityGroupId"]]}]
        found = account("ec2").describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]
        return [
            str(rule["SecurityGroupRuleId"])
            for rule in found
            if rule["IsEgress"] == egress
            and rule["IpProtocol"] == inputs["ipProtocol"]
            and rule.get("CidrIpv4") == inputs.get("cidrIpv4")
            and rule.get("ReferencedGroupInfo", {}).get("GroupId") == inputs.get("referencedSecurityGroupId")
            and (rule["IpProtocol"] == "-1" or (rule["FromPort"], rule["ToPort"]) == (inputs["fromPort"], inputs["toPort"]))
        ]  # fmt: skip

    return finder


def _route(account: Account, inputs: Inputs) -> list[str]:
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    for found in account("ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]:
        if any(route.get("DestinationCidrBlock") == destination for route in found["Routes"]):
            return [f"r-{table}{zlib.crc32(destination.encode())}"]
    return []


def _route_table_association(account: Account, inputs: Inputs) -> list[str]:
    of_subnet = [{"Name": "association.subnet-id", "Values": [inputs["subnetId"]]}]
    found = account("ec2").describe_route_tables(Filters=of_subnet)["RouteTables"]
    return [
        str(association["RouteTableAssociationId"])
        for table in found
        for association in table["Associations"]
        if association.get("SubnetId") == inputs["subnetId"]
    ]


def _address_association(account: Account, inputs: Inputs) -> list[str]:
    found = account("ec2").describe_addresses(AllocationIds=[inputs["allocationId"]])["Addresses"]
    return [str(one["AssociationId"]) for one in found if one.get("InstanceId") == inputs["instanceId"]]


def _record(account: Account, inputs: Inputs) -> list[str]:
    """One of other values was there before, and its creation is refused."""
    zone, name, type = inputs["zoneId"], str(inputs["name"]).rstrip(".").lower(), inputs["type"]
    found = account("route53").list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name, StartRecordType=type, MaxItems="1"
    )["ResourceRecordSets"]
    return [
        f"{zone}_{name}_{type}"
        for record in found
        if (record["Name"].rstrip("."), record["Type"]) == (name, type)
        and sorted(value["Value"] for value in record["ResourceRecords"]) == sorted(inputs["records"])
    ]


def _ours(inputs: Inputs, tags: list[dict[str, str]]) -> bool:
    """A name that is not drawn may be another's."""
    wanted: Mapping[str, str] = inputs.get("tags") or {}
    return wanted.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()


def _role(account: Account, inputs: Inputs) -> list[str]:
    role = account("iam").get_role(RoleName=inputs["name"])["Role"]
    return [str(role["RoleName"])] if _ours(inputs, role.get("Tags", [])) else []


def _role_policy(account: Account, inputs: Inputs) -> list[str]:
    found = account("iam").get_role_policy(RoleName=inputs["role"], PolicyName=inputs["name"])
    return [f"{found['RoleName']}:{found['PolicyName']}"]


def _instance_profile(account: Account, inputs: Inputs) -> list[str]:
    profile = account("iam").get_instance_profile(InstanceProfileName=inputs["name"])["InstanceProfile"]
    return [str(profile["InstanceProfileName"])] if _ours(inputs, profile.get("Tags", [])) else []


def _secret(account: Account, inputs: Inputs) -> list[str]:
    found = account("secretsmanager").list_secrets(Filters=[{"Key": "name", "Values": [inputs["name"]]}])
    return [
        str(one["ARN"])
        for one in found["SecretList"]
        if one["Name"] == inputs["name"] and _ours(inputs, one.get("Tags", []))
    ]


FINDERS: Mapping[str, Callable[[Account, Inputs], list[str]]] = {
    "aws:ec2/vpc:Vpc": _tagged("describe_vpcs", "Vpcs", "VpcId"),
    "aws:ec2/subnet:Subnet": _tagged("describe_subnets", "Subnets", "SubnetId", ("cidrBlock", "cidr-block")),
    "aws:ec2/internetGateway:InternetGateway": _tagged(
        "describe_internet_gateways", "InternetGateways", "InternetGatewayId"
    ),
    "aws:ec2/routeTable:RouteTable": _tagged("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _route_table_association,
    "aws:ec2/securityGroup:SecurityGroup": _tagged(
        "describe_security_groups", "SecurityGroups", "GroupId", ("name", "group-name")
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rules(egress=False),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rules(egress=True),
    "aws:ec2/instance:Instance": _instances,
    "aws:ec2/eip:Eip": _tagged("describe_addresses", "Addresses", "AllocationId"),
    "aws:ec2/eipAssociation:EipAssociation": _address_association,
    "aws:route53/record:Record": _record,
    "aws:iam/role:Role": _role,
    "aws:iam/rolePolicy:RolePolicy": _role_policy,
    "aws:iam/instanceProfile:InstanceProfile": _instance_profile,
    "aws:secretsmanager/secret:Secret": _secret,
}
