"""All that there is in the sandbox's account, of every kind that a cluster is made of."""

from collections.abc import Callable, Iterable
from typing import Any

Thing = tuple[str, str]
"""What it is, and its id."""

IN_EC2 = {
    "volume": ("describe_volumes", "Volumes", "VolumeId"),
    "address": ("describe_addresses", "Addresses", "AllocationId"),
    "network interface": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    "security group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "security group rule": (
        "describe_security_group_rules",
        "SecurityGroupRules",
        "SecurityGroupRuleId",
    ),
    "VPC": ("describe_vpcs", "Vpcs", "VpcId"),
    "subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "internet gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "route table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "key pair": ("describe_key_pairs", "KeyPairs", "KeyPairId"),
}
IN_IAM = {
    "role": ("list_roles", "Roles", "RoleName"),
    "instance profile": ("list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    "user": ("list_users", "Users", "UserName"),
}


def scan(client: Callable[[str], Any]) -> set[Thing]:
    ec2, iam, route53, secrets = map(client, ("ec2", "iam", "route53", "secretsmanager"))
    return {
        *_listed(ec2, IN_EC2),
        *_listed(iam, IN_IAM),
        *(
            ("instance", instance["InstanceId"])
            for reservation in ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
            if instance["State"]["Name"] != "terminated"
        ),
        *(("policy", policy["Arn"]) for policy in iam.list_policies(Scope="Local")["Policies"]),
        *(
            ("policy", f"{role['RoleName']}:{policy}")
            for role in iam.list_roles()["Roles"]
            for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        ),
        *(
            ("record", f"{record['Name']} {record['Type']}")
            for zone in route53.list_hosted_zones()["HostedZones"]
            for record in route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
        ),
        *(
            ("secret", secret["ARN"])
            for secret in secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]
        ),
    }


def _listed(client: Any, kinds: dict[str, tuple[str, str, str]]) -> Iterable[Thing]:
    for kind, (describe, key, id) in kinds.items():
        for one in getattr(client, describe)()[key]:
            yield kind, one[id]
