"""The daemon's client of the AWS API: instances, security groups, roles and records."""

import base64
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network
from typing import Any

import boto3

from sandbox.cloud import addresses
from sandbox.cloud.credentials import Credentials
from sandbox.cloud.security_groups import Group, Members, Rule


@dataclass(frozen=True)
class Instance:
    """An EC2 instance that is not terminated."""

    id: str
    name: str
    running: bool
    image: str
    type: str
    zone: str
    vpc: str
    private_address: str
    network: IPv4Network
    """CIDR block of the subnet."""
    public_address: str | None
    """None if the subnet has no route to an internet gateway."""
    nat_address: str | None
    """Public address of the NAT gateway that the subnet's default route leads to, if it does."""
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """The instances and security groups in the API at one moment."""

    instances: tuple[Instance, ...] = ()
    groups: dict[str, Group] = field(default_factory=dict[str, Group])

    @property
    def members(self) -> Members:
        """Private addresses of the instances in each security group."""
        found: dict[str, list[str]] = defaultdict(list)
        for instance in self.instances:
            for group in instance.groups:
                found[group].append(instance.private_address)
        return found


class Client:
    """The daemon's client of the API."""

    def __init__(self) -> None:
        self._session = boto3.Session("test", "test", region_name=addresses.REGION)
        self._ec2 = self._session.client("ec2", endpoint_url=addresses.API_URL)
        self._route53 = self._session.client("route53", endpoint_url=addresses.API_URL)

    # Created on first use: these clients load slowly and few clouds need them.

    @cached_property
    def _iam(self) -> Any:
        return self._session.client("iam", endpoint_url=addresses.API_URL)

    @cached_property
    def _s3(self) -> Any:
        return self._session.client("s3", endpoint_url=addresses.API_URL)

    @cached_property
    def _secrets(self) -> Any:
        return self._session.client("secretsmanager", endpoint_url=addresses.API_URL)

    def create_zone(self, name: str) -> None:
        self._route53.create_hosted_zone(Name=name, CallerReference=name)

    def stop_instance(self, instance: str) -> None:
        self._ec2.stop_instances(InstanceIds=[instance])

    def get_user_data(self, instance: str) -> bytes:
        answer = self._ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        return base64.b64decode(answer["UserData"].get("Value", ""))

    def find_role(self, instance: str) -> str | None:
        """Returns the role in the instance's profile, or None."""
        filters = [{"Name": "instance-id", "Values": [instance]}]
        answer = self._ec2.describe_iam_instance_profile_associations(Filters=filters)
        for association in answer["IamInstanceProfileAssociations"]:
            profile = association["IamInstanceProfile"]["Arn"].rpartition("/")[2]
            roles = self._iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
            return roles[0]["RoleName"] if roles else None
        return None

    def list_policies(self, caller: Credentials) -> list[dict[str, Any]]:
        """Returns the inline policies of the caller's role or user."""
        kind = "user" if caller.user else "role"
        of_caller = {f"{kind.title()}Name": caller.user or caller.role}
        get = getattr(self._iam, f"get_{kind}_policy")
        try:
            names = getattr(self._iam, f"list_{kind}_policies")(**of_caller)["PolicyNames"]
            return [get(**of_caller, PolicyName=name)["PolicyDocument"] for name in names]
        except self._iam.exceptions.NoSuchEntityException:  # deleted after its credentials were issued
            return []

    def allows_acls(self, bucket: str) -> bool:
        """Whether the objects of a bucket can have ACLs. Those of a new bucket cannot (S3 User Guide, "Controlling ownership of objects")."""
        try:
            rules = self._s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        except self._s3.exceptions.ClientError:  # no such bucket
            return True
        return rules[0]["ObjectOwnership"] != "BucketOwnerEnforced"

    def find_secret_arn(self, secret: str) -> str | None:
        try:
            arn: str = self._secrets.describe_secret(SecretId=secret)["ARN"]
        except self._secrets.exceptions.ResourceNotFoundException:
            return None
        return arn

    def find_image(self, ami: str) -> str:
        """Returns the name of the machine image for an AMI, or "" if there is none."""
        images = self._ec2.describe_images(Filters=[{"Name": "image-id", "Values": [ami]}])["Images"]
        tags = (tag for image in images for tag in image.get("Tags", []))
        return next((tag["Value"] for tag in tags if tag["Key"] == "sandbox-image"), "")

    def read_snapshot(self) -> Snapshot:
        """Reads all instances and security groups."""
        subnets: dict[str, IPv4Network] = {
            subnet["SubnetId"]: IPv4Network(subnet["CidrBlock"])
            for subnet in self._ec2.describe_subnets()["Subnets"]
        }
        default_routes = self._find_default_routes()
        nat_gateways = self._find_nat_gateways(default_routes)
        elastic: dict[str, str] = {
            address["InstanceId"]: address["PublicIp"]
            for address in self._ec2.describe_addresses()["Addresses"]
            if address.get("InstanceId")
        }
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        found = [
            Instance(
                id=item["InstanceId"],
                name=next(
                    (tag["Value"] for tag in item.get("Tags", []) if tag["Key"] == "Name"), item["InstanceId"]
                ),
                running=item["State"]["Name"] in ("pending", "running"),
                image=item["ImageId"],
                type=item["InstanceType"],
                zone=item["Placement"]["AvailabilityZone"],
                vpc=item["VpcId"],
                private_address=item["PrivateIpAddress"],
                network=subnets[item["SubnetId"]],
                public_address=(elastic.get(item["InstanceId"]) or item.get("PublicIpAddress"))
                if default_routes(item["VpcId"], item["SubnetId"]).startswith("igw-")
                else None,
                nat_address=nat_gateways.get(default_routes(item["VpcId"], item["SubnetId"])),
                groups=tuple(group["GroupId"] for group in item["SecurityGroups"]),
            )
            for page in self._ec2.get_paginator("describe_instances").paginate(Filters=states)
            for reservation in page["Reservations"]
            for item in reservation["Instances"]
        ]
        groups = {
            group["GroupId"]: Group(
                id=group["GroupId"],
                name=group["GroupName"],
                ingress=tuple(map(_parse_rule, group["IpPermissions"])),
                egress=tuple(map(_parse_rule, group["IpPermissionsEgress"])),
            )
            for group in self._ec2.describe_security_groups()["SecurityGroups"]
        }
        return Snapshot(tuple(found), groups)

    def _find_default_routes(self) -> Callable[[str, str], str]:
        """Returns a function of VPC and subnet: the gateway that the subnet's default route leads to, empty without one."""
        tables: dict[str, str] = {}
        for table in self._ec2.describe_route_tables()["RouteTables"]:
            gateways = (
                route.get("GatewayId") or route.get("NatGatewayId") or ""
                for route in table["Routes"]
                if route.get("DestinationCidrBlock") == "0.0.0.0/0"
            )
            gateway = next(gateways, "")
            for association in table["Associations"]:
                tables[association.get("SubnetId") or table["VpcId"]] = gateway
        return lambda vpc, subnet: tables.get(subnet, tables.get(vpc, ""))

    def _find_nat_gateways(self, default_routes: Callable[[str, str], str]) -> dict[str, str]:
        """Returns the public addresses of the NAT gateways by id. One in a subnet that is not public forwards nothing."""
        states = [{"Name": "state", "Values": ["available"]}]
        return {
            gateway["NatGatewayId"]: gateway["NatGatewayAddresses"][0]["PublicIp"]
            for gateway in self._ec2.describe_nat_gateways(Filters=states)["NatGateways"]
            if gateway.get("ConnectivityType", "public") == "public"
            and default_routes(gateway["VpcId"], gateway["SubnetId"]).startswith("igw-")
        }

    def list_records(self) -> list[tuple[str, str, int, str]]:
        """Returns all Route 53 records: name, type, TTL, value."""
        return [
            (record["Name"], record["Type"], record.get("TTL", 60), value["Value"])
            for zone in self._route53.list_hosted_zones()["HostedZones"]
            for page in self._route53.get_paginator("list_resource_record_sets").paginate(
                HostedZoneId=zone["Id"]
            )
            for record in page["ResourceRecordSets"]
            for value in record.get("ResourceRecords", [])
        ]


def _parse_rule(permission: dict[str, Any]) -> Rule:
    return Rule(
        protocol=permission["IpProtocol"],
        from_port=permission.get("FromPort", -1),
        to_port=permission.get("ToPort", -1),
        networks=tuple(sorted(item["CidrIp"] for item in permission.get("IpRanges", []))),
        groups=tuple(sorted(item["GroupId"] for item in permission.get("UserIdGroupPairs", []))),
    )
