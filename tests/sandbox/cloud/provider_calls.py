"""The API calls of the official AWS provider, per resource type, with its parameters and waiters.

Source: facts of pulumi-aws 7.51.1 over terraform-provider-aws 6. Its SDK retries 5xx answers for minutes, therefore each
call here fails on the first one.
"""

import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.cloud import addresses, host

WORLD = "0.0.0.0/0"
TAGS = [{"Key": "project", "Value": "ant-media"}]


@contextmanager
def start_api() -> Generator["Api"]:
    """Runs the sandbox's API server without machines."""
    command = [sys.executable, "-m", "sandbox.cloud.api_server"]
    with subprocess.Popen(
        command, cwd=host.SANDBOX.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield Api(server.stdout.readline().strip())
        server.terminate()


@dataclass(frozen=True)
class Api:
    """Clients of the server at `url`."""

    url: str

    def _client(self, service: str) -> Any:
        return boto3.Session("test", "test", region_name=addresses.REGION).client(
            service, endpoint_url=self.url, config=Config(retries={"total_max_attempts": 1})
        )

    @cached_property
    def ec2(self) -> Any:
        return self._client("ec2")

    @cached_property
    def iam(self) -> Any:
        return self._client("iam")

    @cached_property
    def route53(self) -> Any:
        return self._client("route53")

    @cached_property
    def secrets(self) -> Any:
        return self._client("secretsmanager")

    @cached_property
    def s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def sts(self) -> Any:
        return self._client("sts")

    @cached_property
    def quotas(self) -> Any:
        return self._client("service-quotas")


@contextmanager
def refused(code: str) -> Generator[None]:
    """Expects a 4xx answer with this code."""
    with pytest.raises(ClientError) as failure:
        yield
    error, metadata = failure.value.response["Error"], failure.value.response["ResponseMetadata"]
    assert (error["Code"], metadata["HTTPStatusCode"] // 100) == (code, 4), error["Message"]


def wait_for(read: Callable[[], object], wanted: object, times: int = 1) -> None:
    """Reads until the answer is as wanted, `times` times in a row: the provider's StateChangeConf."""
    deadline, met = time.monotonic() + 300, 0
    while met < times:
        found = read()
        met = met + 1 if found == wanted else 0
        assert time.monotonic() < deadline, f"{found!r} is not {wanted!r} after 300 seconds"


def tag_specification(kind: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": TAGS}]


def by_id(name: str, id: str) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [id]}]


# ---- networks


def create_vpc(api: Api, cidr: str = "10.0.0.0/16") -> str:
    vpc: str = api.ec2.create_vpc(
        CidrBlock=cidr, InstanceTenancy="default", TagSpecifications=tag_specification("vpc")
    )["Vpc"]["VpcId"]
    wait_for(lambda: api.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["State"], "available")
    api.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    wait_for(lambda: read_vpc(api, vpc)["enableDnsHostnames"], True)
    return vpc


def read_vpc(api: Api, vpc: str) -> dict[str, Any]:
    """Reads a VPC with its attributes and the ids of its default resources."""
    found = api.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]
    attributes = {
        name: api.ec2.describe_vpc_attribute(VpcId=vpc, Attribute=name)[name[0].upper() + name[1:]]["Value"]
        for name in ("enableDnsHostnames", "enableDnsSupport", "enableNetworkAddressUsageMetrics")
    }
    in_vpc = by_id("vpc-id", vpc)
    default = [*in_vpc, {"Name": "default", "Values": ["true"]}]
    (acl,) = api.ec2.describe_network_acls(Filters=default)["NetworkAcls"]
    main = [*in_vpc, {"Name": "association.main", "Values": ["true"]}]
    (table,) = api.ec2.describe_route_tables(Filters=main)["RouteTables"]
    named = [*in_vpc, {"Name": "group-name", "Values": ["default"]}]
    (group,) = api.ec2.describe_security_groups(Filters=named)["SecurityGroups"]
    return {
        **found,
        **attributes,
        "acl": acl["NetworkAclId"],
        "table": table["RouteTableId"],
        "group": group["GroupId"],
    }


def create_gateway(api: Api, vpc: str) -> str:
    gateway: str = api.ec2.create_internet_gateway(TagSpecifications=tag_specification("internet-gateway"))[
        "InternetGateway"
    ]["InternetGatewayId"]
    api.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    wait_for(
        lambda: api.ec2.describe_internet_gateways(InternetGatewayIds=[gateway])["InternetGateways"][0][
            "Attachments"
        ],
        [{"State": "available", "VpcId": vpc}],
        times=2,
    )
    return gateway


def delete_gateway(api: Api, gateway: str, vpc: str) -> None:
    api.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    api.ec2.delete_internet_gateway(InternetGatewayId=gateway)


def create_route_table(api: Api, vpc: str, gateway: str) -> str:
    table: str = api.ec2.create_route_table(VpcId=vpc, TagSpecifications=tag_specification("route-table"))[
        "RouteTable"
    ]["RouteTableId"]
    api.ec2.create_route(RouteTableId=table, DestinationCidrBlock=WORLD, GatewayId=gateway)
    wait_for(
        lambda: [
            (route["State"], route["Origin"])
            for route in api.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
            if route.get("DestinationCidrBlock") == WORLD
        ],
        [("active", "CreateRoute")],
        times=2,
    )
    return table


def create_subnet(api: Api, vpc: str, cidr: str = "10.0.32.0/19", zone: str = "a") -> str:
    subnet: str = api.ec2.create_subnet(
        VpcId=vpc,
        CidrBlock=cidr,
        AvailabilityZone=f"{addresses.REGION}{zone}",
        TagSpecifications=tag_specification("subnet"),
    )["Subnet"]["SubnetId"]
    wait_for(
        lambda: api.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["State"], "available", times=2
    )
    return subnet


def associate_route_table(api: Api, table: str, subnet: str) -> str:
    association: str = api.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    wait_for(
        lambda: [
            found["AssociationState"]["State"]
            for table in api.ec2.describe_route_tables(
                Filters=by_id("association.route-table-association-id", association)
            )["RouteTables"]
            for found in table["Associations"]
            if found["RouteTableAssociationId"] == association
        ],
        ["associated"],
    )
    return association


@dataclass(frozen=True)
class Network:
    vpc: str
    gateway: str
    table: str
    subnet: str
    association: str


def create_network(api: Api) -> Network:
    vpc = create_vpc(api)
    gateway = create_gateway(api, vpc)
    table, subnet = create_route_table(api, vpc, gateway), create_subnet(api, vpc)
    return Network(vpc, gateway, table, subnet, associate_route_table(api, table, subnet))


def delete_network(api: Api, network: Network) -> None:
    api.ec2.disassociate_route_table(AssociationId=network.association)
    assert not list_interfaces(api, network.subnet)
    api.ec2.delete_subnet(SubnetId=network.subnet)
    api.ec2.delete_route(RouteTableId=network.table, DestinationCidrBlock=WORLD)
    api.ec2.delete_route_table(RouteTableId=network.table)
    delete_gateway(api, network.gateway, network.vpc)
    api.ec2.delete_vpc(VpcId=network.vpc)
    with refused("InvalidVpcID.NotFound"):
        api.ec2.describe_vpcs(VpcIds=[network.vpc])


def list_interfaces(api: Api, subnet: str) -> list[dict[str, Any]]:
    """Lists the interfaces of a subnet, as before its deletion."""
    found: list[dict[str, Any]] = api.ec2.describe_network_interfaces(Filters=by_id("subnet-id", subnet))[
        "NetworkInterfaces"
    ]
    return found


# ---- security groups


@contextmanager
def suppress_missing_rule() -> Generator[None]:
    """Accepts the two answers that the provider takes as "the rule does not exist"."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("InvalidParameterValue", "InvalidPermission.NotFound"):
            raise


def create_group(api: Api, vpc: str) -> str:
    group: str = api.ec2.create_security_group(
        GroupName=f"group-{uuid.uuid4().hex[:8]}",
        Description="Managed by Pulumi",
        VpcId=vpc,
        TagSpecifications=tag_specification("security-group"),
    )["GroupId"]
    (found,) = api.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["OwnerId"] == addresses.ACCOUNT
    everything = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0}
    api.ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{**everything, "IpRanges": [{"CidrIp": WORLD}]}]
    )
    with suppress_missing_rule():  # the VPC has no IPv6 addresses
        api.ec2.revoke_security_group_egress(
            GroupId=group, IpPermissions=[{**everything, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
        )
    return group


def create_rule(api: Api, group: str, permission: dict[str, Any], *, egress: bool = False) -> str:
    authorize = (
        api.ec2.authorize_security_group_egress if egress else api.ec2.authorize_security_group_ingress
    )
    rule: str = authorize(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"][0][
        "SecurityGroupRuleId"
    ]
    api.ec2.create_tags(Resources=[rule], Tags=TAGS)
    assert read_rule(api, rule)["Tags"] == TAGS
    return rule


def read_rule(api: Api, rule: str) -> dict[str, Any]:
    found: dict[str, Any] = api.ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule])[
        "SecurityGroupRules"
    ][0]
    return found


def modify_rule(api: Api, group: str, rule: str, **request: Any) -> None:
    api.ec2.modify_security_group_rules(
        GroupId=group, SecurityGroupRules=[{"SecurityGroupRuleId": rule, "SecurityGroupRule": request}]
    )


def delete_rule(api: Api, group: str, rule: str, *, egress: bool = False) -> None:
    revoke = api.ec2.revoke_security_group_egress if egress else api.ec2.revoke_security_group_ingress
    revoke(GroupId=group, SecurityGroupRuleIds=[rule])
    with refused("InvalidSecurityGroupRuleId.NotFound"):
        read_rule(api, rule)


# ---- instances


def find_image(api: Api) -> dict[str, Any]:
    image: dict[str, Any] = api.ec2.describe_images(
        Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}], Owners=["136693071363"]
    )["Images"][0]
    return image


def run_instance(api: Api, subnet: str, group: str, address: str | None = None, **overrides: Any) -> str:
    """Runs an instance and waits until it is running: RunInstances of the provider for components/machine.py."""
    image = api.ec2.describe_images(ImageIds=[find_image(api)["ImageId"]])["Images"][0]
    interface = {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": True,
        "SubnetId": subnet,
        "Groups": [group],
        **({"PrivateIpAddress": address} if address else {}),
    }
    request = {
        "ImageId": image["ImageId"],
        "InstanceType": "t3.small",
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": uuid.uuid4().hex,
        "EbsOptimized": False,
        "DisableApiTermination": False,
        "Monitoring": {"Enabled": False},
        "Placement": {"AvailabilityZone": ""},
        "CreditSpecification": {"CpuCredits": "standard"},
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required"},
        "NetworkInterfaces": [interface],
        "UserData": "#cloud-config\n{}\n",
        "BlockDeviceMappings": [
            {
                "DeviceName": image["RootDeviceName"],
                "Ebs": {
                    "DeleteOnTermination": True,
                    "Encrypted": True,
                    "VolumeSize": 16,
                    "VolumeType": "gp3",
                },
            }
        ],
        "TagSpecifications": tag_specification("instance"),
        **overrides,
    }
    instance: str = api.ec2.run_instances(**request)["Instances"][0]["InstanceId"]
    wait_for_state(api, instance, "running")
    return instance


def describe_instance(api: Api, instance: str) -> dict[str, Any]:
    found: dict[str, Any] = api.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0][
        "Instances"
    ][0]
    return found


def wait_for_state(api: Api, instance: str, state: str) -> None:
    wait_for(lambda: describe_instance(api, instance)["State"]["Name"], state)


def primary_interface(instance: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        interface
        for interface in instance["NetworkInterfaces"]
        if interface["Attachment"]["DeviceIndex"] == 0
    )
    return found


def read_instance(api: Api, instance: str) -> dict[str, Any]:
    """Reads an instance with all calls of the provider's reader."""
    found = describe_instance(api, instance)
    api.ec2.describe_instance_types(InstanceTypes=[found["InstanceType"]])
    api.ec2.describe_tags(Filters=by_id("resource-id", instance))
    api.ec2.describe_vpcs(VpcIds=[found["VpcId"]])
    attributes = {
        name: api.ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)[
            name[0].upper() + name[1:]
        ]
        for name in (
            "disableApiStop",
            "disableApiTermination",
            "instanceInitiatedShutdownBehavior",
            "userData",
        )
    }
    (credit,) = api.ec2.describe_instance_credit_specifications(InstanceIds=[instance])[
        "InstanceCreditSpecifications"
    ]
    (volume,) = api.ec2.describe_volumes(Filters=by_id("attachment.instance-id", instance))["Volumes"]
    return {**found, "attributes": attributes, "credit": credit["CpuCredits"], "volume": volume}


def stop_and_modify(api: Api, instance: str, **change: Any) -> None:
    """Changes an attribute of a stopped instance and starts it."""
    api.ec2.stop_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "stopped")
    api.ec2.modify_instance_attribute(InstanceId=instance, **change)
    api.ec2.start_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "running")


def terminate(api: Api, instance: str) -> None:
    api.ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": False})
    api.ec2.terminate_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "terminated")


# ---- Elastic IPs


def allocate(api: Api) -> str:
    allocation: str = api.ec2.allocate_address(
        Domain="vpc", TagSpecifications=tag_specification("elastic-ip")
    )["AllocationId"]
    assert read_address(api, allocation)["Tags"] == TAGS
    return allocation


def read_address(api: Api, allocation: str) -> dict[str, Any]:
    found: dict[str, Any] = api.ec2.describe_addresses(AllocationIds=[allocation])["Addresses"][0]
    api.ec2.describe_addresses_attribute(AllocationIds=[allocation], Attribute="domain-name")
    return found


def associate(api: Api, allocation: str, instance: str) -> str:
    association: str = api.ec2.associate_address(AllocationId=allocation, InstanceId=instance)[
        "AssociationId"
    ]
    wait_for(
        lambda: [
            found.get("InstanceId")
            for found in api.ec2.describe_addresses(Filters=by_id("association-id", association))["Addresses"]
        ],
        [instance],
    )
    return association


def release(api: Api, allocation: str) -> None:
    api.ec2.release_address(AllocationId=allocation)
    with refused("InvalidAllocationID.NotFound"):
        read_address(api, allocation)


# ---- roles

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"}],
}


def create_role(api: Api, name: str) -> None:
    api.iam.create_role(
        RoleName=name,
        Path="/",
        MaxSessionDuration=3600,
        AssumeRolePolicyDocument=json.dumps(TRUST),
        Tags=TAGS,
    )
    role = api.iam.get_role(RoleName=name)["Role"]
    assert (role["AssumeRolePolicyDocument"], role["Tags"], role["MaxSessionDuration"]) == (TRUST, TAGS, 3600)


def delete_role(api: Api, name: str) -> None:
    for profile in api.iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]:
        api.iam.remove_role_from_instance_profile(
            InstanceProfileName=profile["InstanceProfileName"], RoleName=name
        )
    for policy in api.iam.list_role_policies(RoleName=name)["PolicyNames"]:
        api.iam.delete_role_policy(RoleName=name, PolicyName=policy)
    api.iam.delete_role(RoleName=name)
    with refused("NoSuchEntity"):
        api.iam.get_role(RoleName=name)


def create_profile(api: Api, name: str) -> None:
    """Creates a role and an instance profile of the same name."""
    create_role(api, name)
    api.iam.create_instance_profile(InstanceProfileName=name, Path="/", Tags=TAGS)
    api.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    profile = api.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == [name]


def delete_profile(api: Api, name: str) -> None:
    api.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    api.iam.delete_instance_profile(InstanceProfileName=name)
    delete_role(api, name)


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
