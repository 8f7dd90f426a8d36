"""Finds AWS resources by the inputs that they were created with, for resources that the state does not track."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from operations.aws_account import AwsClients
from operations.aws_failures import is_not_found

Inputs = Mapping[str, Any]


def find_ids(aws: AwsClients, type: str, inputs: Inputs) -> list[str]:
    """Returns the ids of matching resources, in the provider's format. Empty for a type without a finder."""
    if type not in FINDERS:
        return []
    try:
        return FINDERS[type](aws, inputs)
    except ClientError as error:
        if is_not_found(error):
            return []
        raise


def get_tags(inputs: Inputs) -> Mapping[str, str]:
    """Returns the tags that a resource has at AWS, with the provider's default tags.

    Version 7 of the provider merges them into `tagsAll`, version 6 into `tags`.
    """
    return inputs.get("tagsAll") or inputs.get("tags") or {}


def _tag_filters(inputs: Inputs) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in get_tags(inputs).items()]


def _find_tagged(
    describe: str, key: str, id: str, *filters: tuple[str, str]
) -> Callable[[AwsClients, Inputs], list[str]]:
    """Returns a finder by tags, which a resource has from its creation on, and by inputs with an EC2 filter."""

    def finder(aws: AwsClients, inputs: Inputs) -> list[str]:
        tags = _tag_filters(inputs)
        by_input = [{"Name": name, "Values": [str(inputs[own])]} for own, name in filters if own in inputs]
        if not tags:
            return []
        found = getattr(aws.client("ec2"), describe)(Filters=[*tags, *by_input])[key]
        return [str(one[id]) for one in found]

    return finder


def _find_instances(aws: AwsClients, inputs: Inputs) -> list[str]:
    exists = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    found = aws.client("ec2").describe_instances(Filters=[*_tag_filters(inputs), *exists])["Reservations"]
    return [str(one["InstanceId"]) for reservation in found for one in reservation["Instances"]]


def _find_rules(egress: bool) -> Callable[[AwsClients, Inputs], list[str]]:
    """Returns a finder by protocol, ports and peer, because all rules of a stack have the same tags."""

    def finder(aws: AwsClients, inputs: Inputs) -> list[str]:
        of_group = [{"Name": "group-id", "Values": [inputs["securityGroupId"]]}]
        found = aws.client("ec2").describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]
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


def _find_route(aws: AwsClients, inputs: Inputs) -> list[str]:
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    for found in aws.client("ec2").describe_route_tables(RouteTableIds=[table])["RouteTables"]:
        if any(route.get("DestinationCidrBlock") == destination for route in found["Routes"]):
            return [f"r-{table}{zlib.crc32(destination.encode())}"]
    return []


def _find_route_table_association(aws: AwsClients, inputs: Inputs) -> list[str]:
    of_subnet = [{"Name": "association.subnet-id", "Values": [inputs["subnetId"]]}]
    found = aws.client("ec2").describe_route_tables(Filters=of_subnet)["RouteTables"]
    return [
        str(association["RouteTableAssociationId"])
        for table in found
        for association in table["Associations"]
        if association.get("SubnetId") == inputs["subnetId"]
    ]


def _find_address_association(aws: AwsClients, inputs: Inputs) -> list[str]:
    found = aws.client("ec2").describe_addresses(AllocationIds=[inputs["allocationId"]])["Addresses"]
    return [str(one["AssociationId"]) for one in found if one.get("InstanceId") == inputs["instanceId"]]


def _find_record(aws: AwsClients, inputs: Inputs) -> list[str]:
    """Ignores a record with other values: it existed before, and Route 53 refuses to create another."""
    zone, name, type = inputs["zoneId"], str(inputs["name"]).rstrip(".").lower(), inputs["type"]
    found = aws.client("route53").list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name, StartRecordType=type, MaxItems="1"
    )["ResourceRecordSets"]
    return [
        f"{zone}_{name}_{type}"
        for record in found
        if (record["Name"].rstrip("."), record["Type"]) == (name, type)
        and sorted(value["Value"] for value in record["ResourceRecords"]) == sorted(inputs["records"])
    ]


def _has_tags(inputs: Inputs, tags: list[dict[str, str]]) -> bool:
    """True if a resource has the tags of the inputs. A resource that is found by its name may be somebody else's."""
    return get_tags(inputs).items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()


def _find_role(aws: AwsClients, inputs: Inputs) -> list[str]:
    role = aws.client("iam").get_role(RoleName=inputs["name"])["Role"]
    return [str(role["RoleName"])] if _has_tags(inputs, role.get("Tags", [])) else []


def _find_role_policy(aws: AwsClients, inputs: Inputs) -> list[str]:
    found = aws.client("iam").get_role_policy(RoleName=inputs["role"], PolicyName=inputs["name"])
    return [f"{found['RoleName']}:{found['PolicyName']}"]


def _find_instance_profile(aws: AwsClients, inputs: Inputs) -> list[str]:
    profile = aws.client("iam").get_instance_profile(InstanceProfileName=inputs["name"])["InstanceProfile"]
    return [str(profile["InstanceProfileName"])] if _has_tags(inputs, profile.get("Tags", [])) else []


def _find_secret(aws: AwsClients, inputs: Inputs) -> list[str]:
    found = aws.client("secretsmanager").list_secrets(Filters=[{"Key": "name", "Values": [inputs["name"]]}])
    return [
        str(one["ARN"])
        for one in found["SecretList"]
        if one["Name"] == inputs["name"] and _has_tags(inputs, one.get("Tags", []))
    ]


def _find_user(aws: AwsClients, inputs: Inputs) -> list[str]:
    user = aws.client("iam").get_user(UserName=inputs["name"])["User"]
    return [str(user["UserName"])] if _has_tags(inputs, user.get("Tags", [])) else []


def _find_user_policy(aws: AwsClients, inputs: Inputs) -> list[str]:
    found = aws.client("iam").get_user_policy(UserName=inputs["user"], PolicyName=inputs["name"])
    return [f"{found['UserName']}:{found['PolicyName']}"]


def _find_bucket(aws: AwsClients, inputs: Inputs) -> list[str]:
    """Ignores a bucket without the stack's tags: an update gives them after the creation, and another stack may have kept it."""
    found = aws.client("s3").get_bucket_tagging(Bucket=inputs["bucket"])
    return [str(inputs["bucket"])] if _has_tags(inputs, found["TagSet"]) else []


FINDERS: Mapping[str, Callable[[AwsClients, Inputs], list[str]]] = {
    "aws:ec2/vpc:Vpc": _find_tagged("describe_vpcs", "Vpcs", "VpcId"),
    "aws:ec2/subnet:Subnet": _find_tagged(
        "describe_subnets", "Subnets", "SubnetId", ("cidrBlock", "cidr-block")
    ),
    "aws:ec2/internetGateway:InternetGateway": _find_tagged(
        "describe_internet_gateways", "InternetGateways", "InternetGatewayId"
    ),
    "aws:ec2/routeTable:RouteTable": _find_tagged("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws:ec2/route:Route": _find_route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _find_route_table_association,
    "aws:ec2/securityGroup:SecurityGroup": _find_tagged(
        "describe_security_groups", "SecurityGroups", "GroupId", ("name", "group-name")
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _find_rules(egress=False),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _find_rules(egress=True),
    "aws:ec2/instance:Instance": _find_instances,
    "aws:ec2/eip:Eip": _find_tagged("describe_addresses", "Addresses", "AllocationId"),
    "aws:ec2/eipAssociation:EipAssociation": _find_address_association,
    "aws:route53/record:Record": _find_record,
    "aws:iam/role:Role": _find_role,
    "aws:iam/rolePolicy:RolePolicy": _find_role_policy,
    "aws:iam/instanceProfile:InstanceProfile": _find_instance_profile,
    "aws:secretsmanager/secret:Secret": _find_secret,
    "aws:iam/user:User": _find_user,
    "aws:iam/userPolicy:UserPolicy": _find_user_policy,
    # Not aws:iam/accessKey:AccessKey: its secret cannot be read again. The user is deleted with all of its keys.
    "aws:s3/bucket:Bucket": _find_bucket,
    # Not aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock: the next update just writes it again.
}
