"""The sandbox's AWS account: calls its APIs and lists every resource in it."""

from collections.abc import Callable, Iterable
from typing import Any

from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import Cluster

Resource = tuple[str, str]
"""Kind and ID."""

EC2_KINDS = {
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
IAM_KINDS = {
    "role": ("list_roles", "Roles", "RoleName"),
    "instance profile": ("list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    "user": ("list_users", "Users", "UserName"),
}


class AwsAccount:
    """Calls AWS with all permissions."""

    def __init__(self, cluster: Cluster, internet: SandboxInternet) -> None:
        self._internet = internet
        self.client: Callable[[str], Any] = cluster.aws_client

    def call(self, service: str, operation: str, **arguments: object) -> Any:
        """Calls one operation, named as in boto3."""
        client = self.client(service)
        return self._internet.call(lambda: getattr(client, operation)(**arguments))

    def list_resources(self) -> set[Resource]:
        """Returns all resources of every kind that a cluster consists of, except terminated instances."""
        return self._internet.call(self._list_resources)

    def _list_resources(self) -> set[Resource]:
        ec2, iam, route53, secrets = map(self.client, ("ec2", "iam", "route53", "secretsmanager"))
        return {
            *_list_kinds(ec2, EC2_KINDS),
            *_list_kinds(iam, IAM_KINDS),
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
            *(("bucket", bucket["Name"]) for bucket in self.client("s3").list_buckets()["Buckets"]),
            *(
                ("secret", secret["ARN"])
                for secret in secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]
            ),
        }


def _list_kinds(client: Any, kinds: dict[str, tuple[str, str, str]]) -> Iterable[Resource]:
    for kind, (operation, list_key, id_key) in kinds.items():
        for resource in getattr(client, operation)()[list_key]:
            yield kind, resource[id_key]
