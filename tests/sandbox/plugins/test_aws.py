"""The aws provider: single operations, and whole stacks under the real engine against moto's server."""

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pulumi_aws
import pytest

from sandbox.plugins.aws.client import AwsClient
from sandbox.plugins.aws.functions import FUNCTIONS, call
from sandbox.plugins.aws.plugin import RESOURCE_TYPES, AwsProvider
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import UNKNOWN, Properties, Value
from sandbox.plugins.provider import ProviderError, ResourceInitFailedError
from tests.project import PROJECT
from tests.sandbox.plugins.plugin_stack import END_ON_INTERRUPT, Stack

BY_TOKEN = {resource_type.token: resource_type for resource_type in RESOURCE_TYPES}
INSTANCE = BY_TOKEN["aws:ec2/instance:Instance"]
SECURITY_GROUP = BY_TOKEN["aws:ec2/securityGroup:SecurityGroup"]
RECORD = BY_TOKEN["aws:route53/record:Record"]
ROLE = BY_TOKEN["aws:iam/role:Role"]
ROLE_POLICY = BY_TOKEN["aws:iam/rolePolicy:RolePolicy"]
PROFILE = BY_TOKEN["aws:iam/instanceProfile:InstanceProfile"]
SECRET = BY_TOKEN["aws:secretsmanager/secret:Secret"]
BUCKET = BY_TOKEN["aws:s3/bucket:Bucket"]

REGION = "eu-west-1"
SERVICES = ("ec2", "iam", "route53", "s3", "secretsmanager", "servicequotas", "sts")
DEBIAN = "136693071363"
DEBIAN_IMAGE = "ami-0deb1a13000000001"


class Amazon:
    """The sandbox's API server, without machines, and its boto3 clients."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ec2 = self._client("ec2")
        self.route53 = self._client("route53")
        self.iam = self._client("iam")
        self.secrets = self._client("secretsmanager")
        self.s3 = self._client("s3")

    def _client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.url, **keys)

    def instances(self) -> list[Any]:
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        return [
            instance
            for reservation in self.ec2.describe_instances(Filters=states)["Reservations"]
            for instance in reservation["Instances"]
        ]

    def terminate_instances(self) -> None:
        self.ec2.terminate_instances(InstanceIds=[machine["InstanceId"] for machine in self.instances()])

    def get_profile_name(self, instance: str) -> str:
        of_instance = [{"Name": "instance-id", "Values": [instance]}]
        (found,) = self.ec2.describe_iam_instance_profile_associations(Filters=of_instance)[
            "IamInstanceProfileAssociations"
        ]
        return str(found["IamInstanceProfile"]["Arn"]).rsplit("/", 1)[-1]

    def get_policy_statement(self, role: str) -> Any:
        (name,) = self.iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = self.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        return document["Statement"][0]

    def count_resources(self) -> dict[str, int]:
        """Counts the resources, without AWS's default ones."""
        groups = self.ec2.describe_security_groups()["SecurityGroups"]
        return {
            "instances": len(self.instances()),
            "volumes": len(self.ec2.describe_volumes()["Volumes"]),
            "addresses": len(self.ec2.describe_addresses()["Addresses"]),
            "groups": len([group for group in groups if group["GroupName"] != "default"]),
            "gateways": len(self.ec2.describe_internet_gateways()["InternetGateways"]),
            "networks": len([vpc for vpc in self.ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]),
            "roles": len(self.iam.list_roles()["Roles"]),
            "profiles": len(self.iam.list_instance_profiles()["InstanceProfiles"]),
            "users": len(self.iam.list_users()["Users"]),
            "buckets": len(self.s3.list_buckets()["Buckets"]),
            "secrets": len(self.secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]),
            "records": sum(
                record["Type"] == "A"
                for zone in self.route53.list_hosted_zones()["HostedZones"]
                for record in self.route53.list_resource_record_sets(HostedZoneId=zone["Id"])[
                    "ResourceRecordSets"
                ]
            ),
        }


@pytest.fixture(scope="module")
def amazon() -> Iterator[Amazon]:
    command = [sys.executable, "-m", "sandbox.cloud.api_server"]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        amazon = Amazon(server.stdout.readline().strip())
        amazon.route53.create_hosted_zone(Name="example.test", CallerReference="test")
        yield amazon
        # The server ends with its standard input.


def settings(amazon: Amazon, **default_tags: str) -> Properties:
    return {
        "region": REGION,
        "accessKey": "test",
        "secretKey": "test",
        "skipCredentialsValidation": True,
        "s3UsePathStyle": True,
        "endpoints": [dict.fromkeys(SERVICES, amazon.url)],
        "defaultTags": {"tags": {"project": "ant-media", **default_tags}},
    }


def configure(stack: Stack, settings: Properties) -> None:
    stack.configure({f"aws:{name}": value for name, value in settings.items()})


@pytest.fixture
def aws(stack: Stack, amazon: Amazon) -> Stack:
    configure(stack, settings(amazon))
    return stack


# ---- the operation for a change


def get_operation(
    resource_type: AwsResourceType, old: Properties, new: Properties, state: Properties | None = None
) -> str:
    """Returns the operation for the change: `replace`, `update` or `same`."""
    before, after = (resource_type.check({}, "n", {}, given)[0] for given in (old, new))
    if resource_type.auto_named and "name" not in {**old, **new}:
        after["name"] = before["name"]
    diff = resource_type.diff({}, before, {**before, **(state or {})}, after)
    return "replace" if diff.replaces else "update" if diff.paths else "same"


MACHINE: Properties = {
    "ami": "ami-1",
    "instanceType": "t3.small",
    "subnetId": "subnet-1",
    "privateIp": "10.0.0.8",
    "userData": "one",
    "vpcSecurityGroupIds": ["sg-1", "sg-2"],
    "metadataOptions": {"httpTokens": "required"},
    "rootBlockDevice": {"volumeSize": 16, "encrypted": True},
    "tags": {"Name": "edge1"},
    "iamInstanceProfile": "one",
}


@pytest.mark.parametrize(
    ("changed", "operation"),
    [
        ({}, "same"),
        ({"ami": "ami-2"}, "replace"),
        ({"ami": UNKNOWN}, "replace"),
        ({"subnetId": "subnet-2"}, "replace"),
        ({"privateIp": "10.0.0.9"}, "replace"),
        ({"availabilityZone": "eu-west-1a"}, "same"),
        ({"availabilityZone": "eu-west-1b"}, "replace"),
        ({"associatePublicIpAddress": True}, "same"),
        ({"associatePublicIpAddress": False}, "replace"),
        ({"userData": "two"}, "update"),
        ({"userData": "two", "userDataReplaceOnChange": True}, "replace"),
        ({"userDataReplaceOnChange": True}, "update"),
        ({"instanceType": "t3.large"}, "update"),
        ({"vpcSecurityGroupIds": ["sg-2", "sg-1"]}, "same"),
        ({"vpcSecurityGroupIds": ["sg-2"]}, "update"),
        ({"metadataOptions": {"httpTokens": "optional"}}, "update"),
        ({"rootBlockDevice": {"volumeSize": 20, "encrypted": True}}, "update"),
        ({"rootBlockDevice": {"volumeSize": 16, "encrypted": False}}, "replace"),
        ({"tags": {"Name": "edge2"}}, "update"),
        ({"iamInstanceProfile": "two"}, "update"),
        ({"iamInstanceProfile": ""}, "same"),
    ],
)
def test_a_change_of_an_instance_replaces_or_updates_it(changed: Properties, operation: str) -> None:
    chosen_by_aws: Properties = {"availabilityZone": "eu-west-1a", "associatePublicIpAddress": True}
    assert get_operation(INSTANCE, MACHINE, {**MACHINE, **changed}, chosen_by_aws) == operation


@pytest.mark.parametrize(
    "removed",
    ["subnetId", "privateIp", "vpcSecurityGroupIds", "metadataOptions", "iamInstanceProfile"],
)
def test_removing_an_input_that_aws_chooses_changes_nothing(removed: str) -> None:
    rest = {name: value for name, value in MACHINE.items() if name != removed}
    assert get_operation(INSTANCE, MACHINE, rest) == "same"


def policy(*actions: str, **statement: Any) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, **statement}]}
    )


TRUST = policy("sts:AssumeRole", Principal={"Service": "ec2.amazonaws.com"})


@pytest.mark.parametrize(
    ("token", "old", "changed", "operation"),
    [
        ("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16"}, {"cidrBlock": "10.1.0.0/16"}, "replace"),
        ("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16"}, {"enableDnsHostnames": True}, "update"),
        (
            "aws:ec2/subnet:Subnet",
            {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24"},
            {"mapPublicIpOnLaunch": True},
            "update",
        ),
        (
            "aws:ec2/subnet:Subnet",
            {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24"},
            {"cidrBlock": "10.0.1.0/24"},
            "replace",
        ),
        ("aws:ec2/securityGroup:SecurityGroup", {"description": "a"}, {"description": "b"}, "replace"),
        ("aws:ec2/securityGroup:SecurityGroup", {"description": "a"}, {"tags": {"a": "b"}}, "update"),
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
            {"securityGroupId": "sg-1", "ipProtocol": "tcp", "fromPort": 22, "toPort": 22},
            {"fromPort": 23},
            "update",
        ),
        (
            "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
            {"securityGroupId": "sg-1", "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"},
            {"securityGroupId": "sg-2"},
            "replace",
        ),
        (
            "aws:ec2/eipAssociation:EipAssociation",
            {"allocationId": "eipalloc-1", "instanceId": "i-1"},
            {"instanceId": "i-2"},
            "replace",
        ),
        (
            "aws:route53/record:Record",
            {"zoneId": "Z", "name": "a", "type": "A", "ttl": 60, "records": ["1.1.1.1"]},
            {"records": ["2.2.2.2"]},
            "update",
        ),
        (
            "aws:route53/record:Record",
            {"zoneId": "Z", "name": "a", "type": "A", "ttl": 60, "records": ["1.1.1.1"]},
            {"name": "b"},
            "replace",
        ),
        (
            "aws:ec2/route:Route",
            {"routeTableId": "rtb-1", "destinationCidrBlock": "0.0.0.0/0", "gatewayId": "igw-1"},
            {"gatewayId": "igw-2"},
            "update",
        ),
        ("aws:iam/role:Role", {"assumeRolePolicy": TRUST, "name": "a"}, {"name": "b"}, "replace"),
        ("aws:iam/role:Role", {"assumeRolePolicy": TRUST}, {"description": "b"}, "update"),
        (
            "aws:iam/role:Role",
            {"assumeRolePolicy": TRUST},
            {"assumeRolePolicy": TRUST.replace("ec2", "ecs")},
            "update",
        ),
        ("aws:iam/rolePolicy:RolePolicy", {"role": "a", "policy": "{}"}, {"role": "b"}, "replace"),
        ("aws:iam/rolePolicy:RolePolicy", {"role": "a", "policy": "{}"}, {"role": UNKNOWN}, "replace"),
        ("aws:iam/rolePolicy:RolePolicy", {"role": "a", "policy": "{}"}, {"policy": UNKNOWN}, "update"),
        ("aws:iam/instanceProfile:InstanceProfile", {"role": "a"}, {"role": "b"}, "update"),
        ("aws:iam/instanceProfile:InstanceProfile", {"name": "a"}, {"name": "b"}, "replace"),
        ("aws:secretsmanager/secret:Secret", {"name": "a"}, {"name": "b"}, "replace"),
        ("aws:secretsmanager/secret:Secret", {"name": "a"}, {"description": "b"}, "update"),
        ("aws:secretsmanager/secret:Secret", {"name": "a"}, {"recoveryWindowInDays": 0}, "update"),
    ],
)
def test_a_change_of_another_resource_type_replaces_or_updates_it(
    token: str, old: Properties, changed: Properties, operation: str
) -> None:
    assert get_operation(BY_TOKEN[token], old, {**old, **changed}) == operation


@pytest.mark.parametrize(
    ("new", "operation"),
    [
        ('{"Statement": {"Action": ["b", "a"], "Resource": ["r"]},\n "Version": "2012-10-17"}', "same"),
        ('{"Version": "2012-10-17", "Statement": [{"Action": ["a"], "Resource": "r"}]}', "update"),
        ('{"Version": "2012-10-17", "Statement": [{"Action": ["a", "b"], "Resource": "s"}]}', "update"),
        ('{"Version": "2008-10-17", "Statement": [{"Action": ["a", "b"], "Resource": "r"}]}', "update"),
    ],
)
def test_policies_are_compared_by_meaning(new: str, operation: str) -> None:
    old = '{"Version": "2012-10-17", "Statement": [{"Action": ["a", "b"], "Resource": "r"}]}'
    assert get_operation(ROLE_POLICY, {"role": "a", "policy": old}, {"role": "a", "policy": new}) == operation


@pytest.mark.parametrize(
    ("resource_type", "given", "error"),
    [
        (ROLE, {"name": "r" * 65}, "expected length of name to be in the range (1 - 64), got rrr"),
        (ROLE, {"name": "a role"}, r"invalid value for name (must match [\w+=,.@-])"),
        (ROLE, {"assumeRolePolicy": "{"}, '"assume_role_policy" contains an invalid JSON policy'),
        (ROLE_POLICY, {"policy": "[]"}, '"policy" contains an invalid JSON policy: not a JSON object'),
        (ROLE_POLICY, {"role": "arn:aws:iam::1:role/r"}, "must be the role's name not its ARN"),
        (PROFILE, {"name": "p" * 129}, "expected length of name to be in the range (1 - 128)"),
        (SECRET, {"name": "a:b"}, "only alphanumeric characters and /_+=.@- special characters"),
        (SECRET, {"name": "s" * 513}, '"name" cannot be greater than 512 characters'),
        (SECRET, {"recoveryWindowInDays": 5}, "expected recovery_window_in_days to be 0 or in the range"),
    ],
)
def test_a_preview_refuses_invalid_inputs(
    resource_type: AwsResourceType, given: Properties, error: str
) -> None:
    valid: Properties = {"assumeRolePolicy": TRUST} if resource_type is ROLE else {}
    valid |= {"role": "r", "policy": "{}"} if resource_type is ROLE_POLICY else {}
    _, failures = resource_type.check({}, "n", {}, {**valid, **given})
    assert list(failures) == list(given)
    assert error in "".join(failures.values())
    _, unknown = resource_type.check({}, "n", {}, {**valid, **dict.fromkeys(given, UNKNOWN)})
    assert not unknown


def test_a_role_whose_generated_name_is_too_long_is_refused() -> None:
    """The generated suffix takes eight of the 64 characters."""
    _, short = ROLE.check({}, "r" * 56, {}, {"assumeRolePolicy": TRUST})
    _, long = ROLE.check({}, "r" * 57, {}, {"assumeRolePolicy": TRUST})
    assert not short
    assert list(long) == ["name"]


def test_only_a_fixed_name_is_deleted_before_its_replacement() -> None:
    def replace_on_change(given: Properties) -> bool:
        old, new = (
            SECURITY_GROUP.check({}, "web", {}, {**given, "description": text})[0] for text in ("a", "b")
        )
        return SECURITY_GROUP.diff({}, old, old, new).delete_before_replace

    assert replace_on_change({"name": "web"})
    assert not replace_on_change({"namePrefix": "web-"})
    assert not replace_on_change({})
    checked, _ = SECURITY_GROUP.check({}, "web", {}, {})
    assert str(checked["name"]).startswith("web-")
    again, _ = SECURITY_GROUP.check({}, "web", checked, {})
    assert again["name"] == checked["name"]


def test_generated_names_depend_only_on_the_seed() -> None:
    names = [SECURITY_GROUP.check({}, "web", {}, {}, seed)[0]["name"] for seed in (b"one", b"one", b"two")]
    assert names[0] == names[1] != names[2]


def test_the_public_address_is_unknown_in_a_preview_of_another_instance_type() -> None:
    state = {**MACHINE, "publicIp": "198.51.100.1", "publicDns": "ec2-198-51-100-1"}
    changed = {**MACHINE, "instanceType": "t3.micro"}
    planned = INSTANCE.preview_outputs(REGION, {}, state, MACHINE, changed)
    assert (planned["publicIp"], planned["publicDns"]) == (UNKNOWN, UNKNOWN)
    assert INSTANCE.preview_outputs(REGION, {}, state, MACHINE, MACHINE)["publicIp"] == "198.51.100.1"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hibernation": True}, "hibernation"),
        ({"rootBlockDevice": {"snapshotId": "snap-1"}}, "rootBlockDevice.snapshotId"),
    ],
)
def test_an_unknown_property_is_an_error_that_names_it_and_its_type(given: Properties, named: str) -> None:
    _, failures = INSTANCE.check({}, "n", {}, {**MACHINE, **given})
    assert list(failures) == [named]
    assert "unknown property of aws:ec2/instance:Instance" in failures[named]


@pytest.mark.parametrize("resource_type", RESOURCE_TYPES, ids=lambda resource_type: resource_type.token)
def test_every_property_exists_in_the_sdk(resource_type: AwsResourceType) -> None:
    """The stand-in may have fewer properties than pulumi_aws, but no others."""
    module, name = resource_type.token.split(":")[1].split("/")[0], resource_type.token.rsplit(":", 1)[1]
    resource = getattr(getattr(pulumi_aws, module), name)
    arguments = getattr(inspect.getmodule(resource), f"{name}Args")
    assert resource_type.inputs <= names(arguments)
    assert resource_type.outputs | resource_type.inputs <= names(resource)
    if resource_type is INSTANCE:
        outputs = pulumi_aws.ec2.outputs
        classes = {
            "metadataOptions": outputs.InstanceMetadataOptions,
            "rootBlockDevice": outputs.InstanceRootBlockDevice,
        }
        for member, known in INSTANCE.nested_inputs.items():
            assert known | INSTANCE.nested_outputs.get(member, frozenset()) <= names(classes[member])


def names(sdk_class: type) -> set[str]:
    properties = inspect.getmembers(sdk_class, lambda member: isinstance(member, property))
    return {getattr(member.fget, "_pulumi_name", name) for name, member in properties}


def test_every_function_argument_exists_in_the_sdk() -> None:
    for token, (_, known) in FUNCTIONS.items():
        module, name = token.split(":")[1].split("/")[0], token.rsplit(":", 1)[1]
        where = pulumi_aws if module == "index" else getattr(pulumi_aws, module)
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        parameters = inspect.signature(getattr(where, snake)).parameters
        given = {each.split("_")[0] + "".join(w.title() for w in each.split("_")[1:]) for each in parameters}
        assert known <= given


# ---- tags and refreshed inputs of provider v7

EIP = BY_TOKEN["aws:ec2/eip:Eip"]
RULE = BY_TOKEN["aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"]
DEFAULT_TAGS = {"project": "ant-media"}


def test_default_tags_are_inputs_in_tags_all_only() -> None:
    checked, _ = EIP.check(DEFAULT_TAGS, "n", {}, {"domain": "vpc", "tags": {"Name": "n"}})
    assert (checked["tags"], checked["tagsAll"]) == ({"Name": "n"}, {"project": "ant-media", "Name": "n"})
    without_tags, _ = EIP.check(DEFAULT_TAGS, "n", {}, {"domain": "vpc"})
    assert "tags" not in without_tags
    assert without_tags["tagsAll"] == DEFAULT_TAGS
    assert EIP.check({}, "n", {}, {})[0]["tagsAll"] == {}
    assert EIP.check(DEFAULT_TAGS, "n", {}, {"tags": {"Name": UNKNOWN}})[0]["tagsAll"] == UNKNOWN


def test_security_group_rules_have_no_default_tags_among_their_inputs() -> None:
    given: Properties = {"securityGroupId": "sg-1", "ipProtocol": "-1", "cidrIpv4": "10.0.0.0/8"}
    checked, _ = RULE.check(DEFAULT_TAGS, "n", {}, given)
    assert not {"tags", "tagsAll"} & checked.keys()
    assert RULE.preview_outputs(REGION, DEFAULT_TAGS, {}, {}, checked)["tagsAll"] == DEFAULT_TAGS
    changed = RULE.diff(DEFAULT_TAGS, checked, {**checked, "tagsAll": {"project": "old"}}, checked)
    assert list(changed.paths) == ["tagsAll.project"]
    assert not changed.replaces


def test_a_refresh_keeps_the_given_policy_among_the_inputs() -> None:
    given, _ = ROLE_POLICY.check({}, "n", {}, {"name": "n", "role": "r", "policy": policy("s3:GetObject")})
    changed: Properties = {**given, "policy": policy("s3:PutObject")}
    assert ROLE_POLICY.inputs_from_state(given, changed)["policy"] == given["policy"]
    assert list(ROLE_POLICY.diff({}, given, changed, given).paths) == ["policy"]


# ---- whole stacks

CLUSTER = """
import pulumi
import pulumi_aws as aws

zones = aws.get_availability_zones(state="available")
ami = aws.ec2.get_ami(most_recent=True, owners=["136693071363"], filters=[{"name": "name", "values": ["debian-13-*"]}])
size = aws.ec2.get_instance_type(instance_type="t3.small")
zone = aws.route53.get_zone(name="example.test")
vpc = aws.ec2.Vpc("vpc", cidr_block="10.9.0.0/16", enable_dns_hostnames=True)
subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block="10.9.0.0/24", availability_zone=zones.names[0])
gateway = aws.ec2.InternetGateway("gateway", vpc_id=vpc.id)
table = aws.ec2.RouteTable("table", vpc_id=vpc.id)
aws.ec2.Route("out", route_table_id=table.id, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.id)
aws.ec2.RouteTableAssociation("association", route_table_id=table.id, subnet_id=subnet.id)
nodes = aws.ec2.SecurityGroup("nodes", vpc_id=vpc.id, description="nodes")
world = aws.ec2.SecurityGroup("world", vpc_id=vpc.id, description="world")
aws.vpc.SecurityGroupIngressRule("ssh", security_group_id=nodes.id, ip_protocol="tcp", from_port=22, to_port=22,
    cidr_ipv4="203.0.113.20/32", description="administrators")
aws.vpc.SecurityGroupIngressRule("http", security_group_id=nodes.id, ip_protocol="tcp", from_port=5080, to_port=5080,
    referenced_security_group_id=world.id, description="the world")
aws.vpc.SecurityGroupEgressRule("all", security_group_id=nodes.id, ip_protocol="-1", cidr_ipv4="0.0.0.0/0")
machine = aws.ec2.Instance("machine", ami=ami.id, instance_type="t3.small", subnet_id=subnet.id, private_ip="10.9.0.8",
    associate_public_ip_address=True, vpc_security_group_ids=[nodes.id, world.id], user_data="#!/bin/sh\\n",
    metadata_options={"http_tokens": "required"}, tags={"Name": "machine"},
    root_block_device={"volume_size": 16, "volume_type": "gp3", "encrypted": True},
    opts=pulumi.ResourceOptions(delete_before_replace=True))
address = aws.ec2.Eip("address", domain="vpc")
aws.ec2.EipAssociation("association-of-address", allocation_id=address.id, instance_id=machine.id)
record = aws.route53.Record("record", zone_id=zone.zone_id, name="live.example.test", type="A", ttl=60,
    records=[address.public_ip])
pulumi.export("memory", size.memory_size)
pulumi.export("private_ip", machine.private_ip)
pulumi.export("public_ip", address.public_ip)
pulumi.export("volume", machine.root_block_device.volume_id)
pulumi.export("arn", machine.arn)
pulumi.export("tags", machine.tags_all)
pulumi.export("fqdn", record.fqdn)
"""


def test_a_cluster_is_created_changed_repaired_and_destroyed(aws: Stack, amazon: Amazon) -> None:
    before = amazon.count_resources()

    # Values from the program are known in a preview; values from AWS are unknown.
    planned = aws.program(CLUSTER).preview()
    for known in ('private_ip: "10.9.0.8"', "memory    : 2048", 'project: "ant-media"'):
        assert known in planned
    for unknown in ("public_ip : [unknown]", "volume    : [unknown]", "arn       : [unknown]"):
        assert unknown in planned

    aws.up()
    outputs = aws.outputs()
    (instance,) = amazon.instances()
    assert outputs["arn"].endswith(f":instance/{instance['InstanceId']}")
    assert outputs["tags"] == {"Name": "machine", "project": "ant-media"}
    assert outputs["volume"] == instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert outputs["fqdn"] == "live.example.test"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    rules = amazon.ec2.describe_security_group_rules()["SecurityGroupRules"]
    groups = {group["GroupId"] for group in instance["NetworkInterfaces"][0]["Groups"]}
    assert len(groups) == 2
    assert [rule["CidrIpv4"] for rule in rules if rule["GroupId"] in groups and rule["IsEgress"]] == [
        "0.0.0.0/0"
    ]
    assert "unchanged" in aws.up("--refresh", "--expect-no-changes")

    # Updates in place: instance type, groups, disk, metadata options, user data.
    changed = (
        CLUSTER.replace('instance_type="t3.small", subnet', 'instance_type="t3.large", subnet')
        .replace("[nodes.id, world.id]", "[nodes.id]")
        .replace('"volume_size": 16', '"volume_size": 20')
        .replace('"http_tokens": "required"', '"http_tokens": "required", "http_put_response_hop_limit": 2')
        .replace("#!/bin/sh", "#!/bin/bash")
        .replace("from_port=22, to_port=22", "from_port=2222, to_port=2222")
        .replace("ttl=60", "ttl=30")
    )
    done = aws.program(changed).up()
    assert "~ 3 updated" in done
    (updated,) = amazon.instances()
    assert updated["InstanceId"] == instance["InstanceId"]
    assert updated["State"]["Name"] == "running"
    assert updated["InstanceType"] == "t3.large"
    assert len(updated["NetworkInterfaces"][0]["Groups"]) == 1
    assert updated["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert updated["MetadataOptions"]["HttpTokens"] == "required"
    volumes = amazon.ec2.describe_volumes(VolumeIds=[outputs["volume"]])["Volumes"]
    assert volumes[0]["Size"] == 20

    # A machine that was terminated by hand is recreated with its address.
    amazon.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    assert "machine created" in aws.up("--refresh")
    (recreated,) = amazon.instances()
    assert recreated["InstanceId"] != instance["InstanceId"]
    assert recreated["PrivateIpAddress"] == "10.9.0.8"

    # A replacement frees the address first, and replaces the association with the machine.
    done = aws.program(changed.replace('"encrypted": True', '"encrypted": False')).up()
    assert done.index("machine deleted original") < done.index("machine created replacement")
    assert "association-of-address created replacement" in done
    assert "record" not in done
    assert amazon.instances()[0]["PrivateIpAddress"] == "10.9.0.8"

    aws.destroy()
    assert amazon.count_resources() == before


# Registers a resource as pulumi_aws does. Importing that package takes longer than the rest of a run, so only two programs do.
REGISTER = """
import pulumi

def register(type, name, inputs, outputs=(), **options):
    module, _, member = type.partition("/")
    token = f"aws:{module}/{member[:1].lower()}{member[1:]}:{member}"
    return pulumi.CustomResource(token, name, {**dict.fromkeys(outputs), **inputs}, pulumi.ResourceOptions(**options))
"""
ASSOCIATED_ADDRESS = f"""{REGISTER}
vpc = register("ec2/Vpc", "vpc", {{"cidrBlock": "10.8.0.0/16"}})
gateway = register("ec2/InternetGateway", "gateway", {{"vpcId": vpc.id}})
subnet = register("ec2/Subnet", "subnet", {{"vpcId": vpc.id, "cidrBlock": "10.8.0.0/24"}}, depends_on=[gateway])
machine = register("ec2/Instance", "machine", {{"ami": "{DEBIAN_IMAGE}", "instanceType": "t3.small", "subnetId": subnet.id,
    "associatePublicIpAddress": True}})
address = register("ec2/Eip", "address", {{"domain": "vpc"}})
register("ec2/EipAssociation", "association", {{"allocationId": address.id, "instanceId": machine.id}})
"""


def test_read_outputs_stores_the_associated_instance_and_address(aws: Stack) -> None:
    aws.program(ASSOCIATED_ADDRESS).up()
    stale = aws.preview("--refresh")
    assert "aws:ec2/eip:Eip: (refresh)" in stale
    assert "aws:ec2/instance:Instance: (refresh)" in stale
    script = PROJECT / "operations/bin/read-outputs"
    subprocess.run([script, "pulumi"], cwd=aws.folder, env=aws.environment, check=True)
    preview = aws.preview("--refresh")
    assert "7 unchanged" in preview
    assert "aws:ec2" not in preview
    aws.destroy()


TAGGED = f"""{REGISTER}
group = register("ec2/SecurityGroup", "group", {{"description": "group", "tags": {{"Name": "group"}}}})
rule = {{"securityGroupId": group.id, "ipProtocol": "tcp"}}
register("vpc/SecurityGroupIngressRule", "rule", {{**rule, "fromPort": 22, "toPort": 22, "cidrIpv4": "203.0.113.20/32"}})
register("vpc/SecurityGroupIngressRule", "from-group", {{**rule, "fromPort": 80, "toPort": 80,
    "referencedSecurityGroupId": group.id, "description": "members"}})
register("ec2/Eip", "plain", {{"domain": "vpc"}})
register("ec2/Eip", "own", {{"domain": "vpc", "tags": {{"project": "other", "kind": "test"}}}})
"""


def test_default_tags_are_set_and_updated_also_on_rules_whose_inputs_have_no_tags(
    aws: Stack, amazon: Amazon
) -> None:
    def tags_of(resource: dict[str, Any]) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}

    def rule_tags() -> list[dict[str, str]]:
        rules = amazon.ec2.describe_security_group_rules()["SecurityGroupRules"]
        return [tags_of(rule) for rule in rules if rule.get("CidrIpv4") == "203.0.113.20/32"]

    aws.program(TAGGED).up()
    assert rule_tags() == [{"project": "ant-media"}]
    rule, group = aws.resources()["rule"], aws.resources()["group"]
    assert not {"tags", "tagsAll"} & rule["inputs"].keys()
    assert rule["outputs"]["tagsAll"] == {"project": "ant-media"}
    assert (group["inputs"]["tags"], group["outputs"]["tags"]) == ({"Name": "group"}, {"Name": "group"})
    assert (
        group["inputs"]["tagsAll"] == group["outputs"]["tagsAll"] == {"project": "ant-media", "Name": "group"}
    )
    assert "unchanged" in aws.up("--refresh", "--expect-no-changes")

    configure(aws, settings(amazon, stage="test"))
    assert "~ 5 updated" in aws.up()
    assert rule_tags() == [{"project": "ant-media", "stage": "test"}]
    addresses = amazon.ec2.describe_addresses()["Addresses"]
    assert sorted(map(sorted, (tags_of(address).items() for address in addresses))) == [
        [("kind", "test"), ("project", "other"), ("stage", "test")],
        [("project", "ant-media"), ("stage", "test")],
    ]

    # A tag that was changed by hand is a tag of the resource itself, until the next update.
    group_id = aws.resources()["group"]["id"]
    amazon.ec2.create_tags(Resources=[group_id], Tags=[{"Key": "stage", "Value": "other"}])
    aws.refresh()
    assert aws.resources()["group"]["outputs"]["tags"] == {"Name": "group", "stage": "other"}
    assert "~ 1 updated" in aws.up()
    assert "unchanged" in aws.up("--refresh", "--expect-no-changes")

    # Without the account's id, the source group of a rule changes at every refresh.
    client = AwsClient({**settings(amazon, stage="test"), "skipRequestingAccountId": True})
    rule = aws.resources()["from-group"]
    read = RULE.read_resource(client, rule["id"], rule["outputs"])
    assert read
    assert read["referencedSecurityGroupId"] == f"123456789012/{group_id}"
    refreshed = RULE.inputs_from_state(rule["inputs"], read)
    changed = RULE.diff(client.default_tags, refreshed, read, rule["inputs"])
    assert list(changed.paths) == ["referencedSecurityGroupId"]
    assert not changed.replaces
    aws.destroy()


STOPPED = f"""{REGISTER}
for name, ignored in (("replaced", []), ("ignored", ["associatePublicIpAddress"])):
    register("ec2/Instance", name, {{"ami": "{DEBIAN_IMAGE}", "instanceType": "t3.small", "associatePublicIpAddress": True}},
        ignore_changes=ignored)
"""


def test_a_stopped_instance_has_no_public_address_and_is_replaced_unless_ignored(
    aws: Stack, amazon: Amazon
) -> None:
    aws.program(STOPPED).up()
    amazon.ec2.stop_instances(InstanceIds=[machine["InstanceId"] for machine in amazon.instances()])
    aws.refresh()
    for name in ("replaced", "ignored"):
        assert aws.resources()[name]["outputs"]["associatePublicIpAddress"] is False
    planned = aws.preview_operations()
    assert planned["replaced"] in ("replace", "create-replacement")
    assert "ignored" not in planned
    amazon.terminate_instances()


def test_an_address_of_another_instance_is_not_reassociated(client: AwsClient, amazon: Amazon) -> None:
    association = BY_TOKEN["aws:ec2/eipAssociation:EipAssociation"]
    (vpc,) = amazon.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    gateway = BY_TOKEN["aws:ec2/internetGateway:InternetGateway"]
    with (
        existing(client, gateway, {"vpcId": vpc["VpcId"]}),
        existing(client, INSTANCE, machine(amazon)) as one,
        existing(client, INSTANCE, machine(amazon)) as other,
        existing(client, EIP, {"domain": "vpc"}) as address,
        existing(client, association, {"allocationId": address, "instanceId": one}),
        pytest.raises(ProviderError, match=r"creating EC2 EIP Association: .* Resource.AlreadyAssociated"),
    ):
        association.create_resource(client, {"allocationId": address, "instanceId": other})


VOLUMES = f"""{REGISTER}
for name, ignored in (("updated", []), ("ignored", ["rootBlockDevice.tags"])):
    register("ec2/Instance", name, {{"ami": "{DEBIAN_IMAGE}", "instanceType": "t3.small",
        "rootBlockDevice": {{"volumeSize": 16, "tags": {{"Name": name}}}}}}, ignore_changes=ignored)
"""


def test_a_volume_gets_default_tags_only_at_its_creation(aws: Stack, amazon: Amazon) -> None:
    def tags() -> dict[str, dict[str, str]]:
        volumes = amazon.ec2.describe_volumes()["Volumes"]
        found = [{tag["Key"]: tag["Value"] for tag in volume["Tags"]} for volume in volumes]
        return {volume.pop("Name"): volume for volume in found}

    configure(aws, settings(amazon, stage="test"))
    aws.program(VOLUMES).up()
    first = {"project": "ant-media", "stage": "test"}
    assert tags() == {"updated": first, "ignored": first}
    configure(aws, settings(amazon, stage="live"))
    aws.up()
    assert tags() == {"updated": first, "ignored": first}
    aws.up("--refresh")  # the first refresh with the new default tags
    assert tags() == {"updated": {"project": "ant-media"}, "ignored": first}
    amazon.terminate_instances()


IDENTITY = f"""{REGISTER}
import json

def policy(*actions, **statement):
    return json.dumps({{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Action": actions, **statement}}]}})

secret = register("secretsmanager/Secret", "secret", {{"name": "cluster/tls", "description": "first", "recoveryWindowInDays": 0}},
    ["arn"])
role = register("iam/Role", "role", {{"assumeRolePolicy": policy("sts:AssumeRole", Principal={{"Service": "ec2.amazonaws.com"}})}},
    ["name", "arn"])
register("iam/RolePolicy", "policy", {{"role": role.name,
    "policy": secret.arn.apply(lambda arn: policy("secretsmanager:GetSecretValue", Resource=arn))}})
profile = register("iam/InstanceProfile", "profile", {{"role": role.name, "tags": {{"kind": "test"}}}}, ["name"])
register("ec2/Instance", "machine", {{"ami": "{DEBIAN_IMAGE}", "instanceType": "t3.small", "iamInstanceProfile": profile.name}})
pulumi.export("secret", secret.arn)
pulumi.export("role", role.name)
pulumi.export("role_arn", role.arn)
pulumi.export("profile", profile.name)
"""


def test_an_instance_profile_is_created_changed_and_destroyed(aws: Stack, amazon: Amazon) -> None:
    before = amazon.count_resources()
    planned = aws.program(IDENTITY).preview()
    assert "sts:AssumeRole" in planned
    assert "role_arn: [unknown]" in planned

    # A machine without a profile gets one in place. As with the official provider, it keeps one that the program lacks.
    without_profile = IDENTITY.replace(', "iamInstanceProfile": profile.name', "")
    aws.program(without_profile).up()
    (machine,) = (instance["InstanceId"] for instance in amazon.instances())
    assert "~ 1 updated" in aws.program(IDENTITY).up()
    outputs = aws.outputs()
    role, profile = outputs["role"], outputs["profile"]
    assert amazon.get_profile_name(machine) == profile
    assert "unchanged" in aws.program(without_profile).up("--expect-no-changes")
    held = amazon.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
    assert [each["Arn"] for each in held["Roles"]] == [outputs["role_arn"]]
    assert amazon.get_policy_statement(role)["Resource"] == outputs["secret"]
    secret = amazon.secrets.describe_secret(SecretId=outputs["secret"])
    assert (secret["Name"], secret["Description"]) == ("cluster/tls", "first")
    tagged = (secret, held, amazon.iam.get_role(RoleName=role)["Role"])
    assert [len(each["Tags"]) for each in tagged] == [1, 2, 1]
    assert all({"Key": "project", "Value": "ant-media"} in each["Tags"] for each in tagged)

    # A policy with another spelling is unchanged, in the program and in the account.
    trust = tagged[-1]["AssumeRolePolicyDocument"]
    trust["Statement"][0]["Action"] = "sts:AssumeRole"
    amazon.iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust, indent=2))
    stored = aws.resources()["role"]["outputs"]
    aws.program(IDENTITY.replace("**statement}]})", "**statement}]}, indent=1)"))
    assert "unchanged" in aws.up("--refresh", "--expect-no-changes")
    assert aws.resources()["role"]["outputs"] == stored

    # Updates in place: the role's policies, descriptions and tags. The secret keeps its value.
    amazon.secrets.put_secret_value(SecretId="cluster/tls", SecretString="account")
    changed = (
        IDENTITY.replace('"secretsmanager:GetSecretValue"', '"secretsmanager:PutSecretValue"')
        .replace('"ec2.amazonaws.com"', '["ec2.amazonaws.com", "ssm.amazonaws.com"]')
        .replace('"role", {', '"role", {"description": "a machine", "tags": {"more": "tags"}, ')
        .replace('"tags": {"kind": "test"}', '"tags": {}')
        .replace('"description": "first"', '"description": "changed", "tags": {"a": "b"}')
    )
    assert "~ 4 updated" in aws.program(changed).up()
    assert amazon.get_policy_statement(role)["Action"] == ["secretsmanager:PutSecretValue"]
    updated = amazon.iam.get_role(RoleName=role)["Role"]
    assert "ssm.amazonaws.com" in str(updated["AssumeRolePolicyDocument"])
    held = amazon.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
    secret = amazon.secrets.describe_secret(SecretId="cluster/tls")
    assert [len(each["Tags"]) for each in (secret, held, updated)] == [2, 1, 2]
    assert (updated["Description"], secret["Description"]) == ("a machine", "changed")
    assert amazon.secrets.get_secret_value(SecretId="cluster/tls")["SecretString"] == "account"

    # A renamed profile and role are replaced without replacing the machine.
    rename_keys = changed.replace('"role", {', '"role", {"name": "guard", ').replace(
        '"profile", {', '"profile", {"name": "guard", '
    )
    done = aws.program(rename_keys).up()
    assert "+-3 replaced" in done
    assert [instance["InstanceId"] for instance in amazon.instances()] == [machine]
    assert amazon.get_profile_name(machine) == "guard"
    assert amazon.get_policy_statement("guard")["Action"] == ["secretsmanager:PutSecretValue"]
    assert amazon.count_resources() == {
        **before,
        "instances": 1,
        "volumes": 1,
        "roles": 1,
        "profiles": 1,
        "secrets": 1,
    }

    aws.destroy()
    assert amazon.count_resources() == before


STORAGE = """
import json
import pulumi
import pulumi_aws as aws

bucket = aws.s3.Bucket("bucket", bucket="a-bucket-of-recordings", force_destroy=False, tags={"Name": "first"})
aws.s3.BucketPublicAccessBlock("block", bucket=bucket.id, block_public_acls=True, block_public_policy=True,
    ignore_public_acls=True, restrict_public_buckets=True)
user = aws.iam.User("user", name="uploader", force_destroy=True)
aws.iam.UserPolicy("policy", user=user.name, policy=bucket.arn.apply(lambda arn: json.dumps({"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": arn + "/*"}]})))
key = aws.iam.AccessKey("key", user=user.name)
pulumi.export("bucket", bucket.id)
pulumi.export("id", key.id)
pulumi.export("secret", key.secret)
pulumi.export("account", aws.get_caller_identity().account_id)
pulumi.export("region", aws.get_region().region)
pulumi.export("found", bucket.id.apply(lambda name: aws.s3.get_bucket(bucket=name).bucket_region))
"""


def test_a_bucket_and_a_key_are_created_changed_and_destroyed(aws: Stack, amazon: Amazon) -> None:
    before = amazon.count_resources()
    aws.program(STORAGE).up()
    outputs = aws.outputs()
    name = str(outputs["bucket"])
    assert (outputs["account"], outputs["region"], outputs["found"]) == ("123456789012", REGION, REGION)
    # The key is known once, encrypted in the state, and kept by a refresh.
    keys = amazon.iam.list_access_keys(UserName="uploader")["AccessKeyMetadata"]
    assert [key["AccessKeyId"] for key in keys] == [outputs["id"]]
    assert "ciphertext" in outputs["secret"]
    aws.refresh("--expect-no-changes")
    assert "unchanged" in aws.up("--refresh", "--expect-no-changes")
    assert amazon.s3.get_bucket_tagging(Bucket=name)["TagSet"] == [
        {"Key": "project", "Value": "ant-media"},
        {"Key": "Name", "Value": "first"},
    ]
    block = amazon.s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}

    # By hand: tags and the block. The next update reverts both.
    amazon.s3.delete_public_access_block(Bucket=name)
    amazon.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "other", "Value": "x"}]})
    aws.up("--refresh")
    assert len(amazon.s3.get_bucket_tagging(Bucket=name)["TagSet"]) == 2
    assert amazon.s3.get_public_access_block(Bucket=name)

    # A bucket with objects is deleted only with forceDestroy; a user with other keys always is.
    amazon.s3.put_object(Bucket=name, Key="streams/a.mp4", Body=b"recording")
    amazon.iam.create_access_key(UserName="uploader")
    failed = aws.destroy(fails=True)
    assert "deleting S3 Bucket (a-bucket-of-recordings): operation error S3: DeleteBucket" in failed
    assert "api error BucketNotEmpty" in failed
    aws.program(STORAGE.replace("force_destroy=False", "force_destroy=True")).up()
    aws.destroy()
    assert amazon.count_resources() == before


def test_an_instance_profile_changed_by_hand_is_restored(aws: Stack, amazon: Amazon) -> None:
    aws.program(IDENTITY).up()
    role, profile = aws.outputs()["role"], aws.outputs()["profile"]
    (machine,) = (instance["InstanceId"] for instance in amazon.instances())
    of_machine = amazon.ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    amazon.ec2.disassociate_iam_instance_profile(AssociationId=of_machine[0]["AssociationId"])
    amazon.iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=role)
    (name,) = amazon.iam.list_role_policies(RoleName=role)["PolicyNames"]
    amazon.iam.put_role_policy(
        RoleName=role, PolicyName=name, PolicyDocument=policy("s3:GetObject", Resource="*")
    )
    amazon.secrets.delete_secret(SecretId="cluster/tls", ForceDeleteWithoutRecovery=True)
    before = aws.resources()["policy"]
    aws.refresh()
    after = aws.resources()["policy"]
    assert after["inputs"] == before["inputs"]
    assert after["outputs"]["policy"] != before["outputs"]["policy"]
    done = aws.up()
    assert "secret created" in done
    assert amazon.get_profile_name(machine) == profile
    held = amazon.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
    assert [each["RoleName"] for each in held["Roles"]] == [role]
    assert amazon.get_policy_statement(role)["Resource"] == aws.outputs()["secret"]

    # Missing resources do not make a destroy fail.
    amazon.secrets.delete_secret(SecretId="cluster/tls", ForceDeleteWithoutRecovery=True)
    amazon.iam.delete_role_policy(RoleName=role, PolicyName=name)
    amazon.iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=role)
    amazon.iam.delete_instance_profile(InstanceProfileName=profile)
    amazon.iam.delete_role(RoleName=role)
    aws.destroy()
    assert not amazon.instances()


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("register('sns/Topic', 'b', {})", "unknown resource type aws:sns/topic:Topic"),
        (
            "register('ec2/Eip', 'e', {'address': '198.51.100.1'})",
            "property address value {198.51.100.1} has a problem: unknown property of aws:ec2/eip:Eip",
        ),
    ],
)
def test_an_unknown_type_or_property_in_a_program_is_an_error_that_names_it(
    aws: Stack, program: str, error: str
) -> None:
    shown = aws.program(f"{END_ON_INTERRUPT}{REGISTER}{program}\n").up(fails=True)
    assert error in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("token", "arguments", "error"),
    [
        ("aws:ec2/getVpc:getVpc", {}, "unknown function aws:ec2/getVpc:getVpc"),
        ("aws:ec2/getAmi:getAmi", {"uefiData": "x"}, "unknown argument uefiData of aws:ec2/getAmi:getAmi"),
        (
            "aws:ec2/getAmi:getAmi",
            {"owners": [DEBIAN], "filters": [{"name": "name", "values": ["none-*"]}]},
            "Your query returned no results. Please change your search criteria and try again.",
        ),
        (
            "aws:ec2/getSubnet:getSubnet",
            {"filters": [{"name": "cidr-block", "values": ["192.0.2.0/24"]}]},
            r"invoking aws:ec2/getSubnet:getSubnet: 1 error occurred:\n\t\* no matching EC2 Subnet found\n\n",
        ),
        ("aws:ec2/getSubnet:getSubnet", {"id": "subnet-0123"}, "no matching EC2 Subnet found"),
        ("aws:ec2/getInstance:getInstance", {"instanceId": "i-0123"}, "no matching EC2 Instance found"),
        (
            "aws:ec2/getInstanceType:getInstanceType",
            {"instanceType": "t9.nano"},
            "reading EC2 Instance Type: operation error EC2: DescribeInstanceTypes, .* api error InvalidInstanceType",
        ),
        ("aws:ec2/getAmi:getAmi", {"mostRecent": True}, "Most Recent Image Not Filtered"),
        (
            "aws:servicequotas/getServiceQuota:getServiceQuota",
            {"serviceCode": "ec2", "quotaCode": "L-0"},
            "couldn't find resource",
        ),
        ("aws:route53/getZone:getZone", {"name": "nowhere.test"}, "no matching Route 53 Hosted Zone found"),
    ],
)
def test_a_function_without_a_result_is_an_error(
    amazon: Amazon, token: str, arguments: Properties, error: str
) -> None:
    with pytest.raises(ProviderError, match=error):
        call(AwsClient(settings(amazon)), token, arguments)


def function(name: str) -> str:
    return f"aws:{name}:{name.split('/')[1]}"


def test_functions_find_interfaces_and_routes(amazon: Amazon) -> None:
    client = AwsClient(settings(amazon))
    (vpc,) = amazon.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    network: Properties = {"vpcId": vpc["VpcId"], "cidrBlock": "172.31.97.0/24"}
    with existing(client, BY_TOKEN["aws:ec2/subnet:Subnet"], network) as subnet:
        placed = machine(amazon, subnetId=subnet, privateIp="172.31.97.9")
        with existing(client, INSTANCE, placed) as instance:
            in_subnet: Value = {"name": "subnet-id", "values": [subnet]}
            address: Value = {
                "name": "addresses.private-ip-address",
                "values": ["172.31.97.8", "172.31.97.9"],
            }
            attached: Value = {"name": "attachment.instance-id", "values": [instance]}
            (id,) = find_interfaces(client, in_subnet, address)
            assert find_interfaces(client, in_subnet, attached) == [id]
            other: Value = {"name": "attachment.instance-id", "values": ["i-00000000000000000"]}
            assert find_interfaces(client, in_subnet, other) == []
            interface = call(client, function("ec2/getNetworkInterface"), {"id": id})
            assert interface["privateIps"] == ["172.31.97.9"]
            (attachment,) = as_list(interface["attachments"])
            assert attachment["instanceId"] == instance
        with pytest.raises(ProviderError, match="query returned no results"):
            call(client, function("ec2/getRouteTable"), {"subnetId": subnet})
    main: Value = {"name": "association.main", "values": ["true"]}
    table = call(client, function("ec2/getRouteTable"), {"vpcId": vpc["VpcId"], "filters": [main]})
    assert all(route["gatewayId"] != "local" for route in as_list(table["routes"]))


def find_interfaces(client: AwsClient, *filters: Value) -> list[Any]:
    return as_list(call(client, function("ec2/getNetworkInterfaces"), {"filters": [*filters]})["ids"])


def as_list(value: Value) -> list[Any]:
    assert isinstance(value, list)
    return value


def test_more_instances_are_found_than_a_page_has(amazon: Amazon) -> None:
    client = AwsClient(settings(amazon))
    ids: list[str] = []
    try:
        for _ in range(101):
            started = amazon.ec2.run_instances(ImageId=machine(amazon)["ami"], MinCount=1, MaxCount=1)
            ids.append(started["Instances"][0]["InstanceId"])
        these: Value = {"name": "instance-id", "values": [*ids]}
        assert call(client, function("ec2/getInstances"), {"filters": [these]})["ids"] == ids
    finally:
        amazon.ec2.terminate_instances(InstanceIds=ids)


def test_functions_find_instances_subnets_addresses_and_offers(amazon: Amazon) -> None:
    client = AwsClient(settings(amazon))
    named: Value = {"name": "tag:Name", "values": ["found"]}
    tags: Properties = {"tags": {"Name": "found"}}
    (vpc,) = amazon.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    subnet: Properties = {"vpcId": vpc["VpcId"], "cidrBlock": "172.31.96.0/24"}
    with (
        existing(client, BY_TOKEN["aws:ec2/subnet:Subnet"], {**subnet, **tags}) as subnet_id,
        existing(
            client, INSTANCE, machine(amazon, **tags, rootBlockDevice={"volumeSize": 16, **tags})
        ) as instance,
        existing(client, EIP, {"domain": "vpc", **tags}) as address,
    ):
        cidr: Value = {"name": "cidr-block", "values": ["172.31.96.0/24"]}
        found = call(client, function("ec2/getSubnets"), {"filters": [named, cidr]})
        assert found["ids"] == [subnet_id]
        assert call(client, function("ec2/getSubnet"), {"id": subnet_id})["availabilityZone"]
        assert call(client, function("ec2/getInstances"), {"filters": [named]})["ids"] == [instance]
        stopped: Properties = {"instanceStateNames": ["stopping", "stopped"], "filters": [named]}
        assert call(client, function("ec2/getInstances"), stopped)["ids"] == []
        amazon.ec2.stop_instances(InstanceIds=[instance])
        assert call(client, function("ec2/getInstances"), stopped)["ids"] == [instance]
        read = call(client, function("ec2/getInstance"), {"instanceId": instance})
        assert read["tags"] == {"Name": "found", "project": "ant-media"}
        root: Value = {"name": "attachment.device", "values": ["/dev/sda1", "/dev/xvda"]}
        sizes = {
            gib: call(
                client,
                function("ebs/getEbsVolumes"),
                {"filters": [named, root, {"name": "size", "values": [gib]}]},
            )["ids"]
            for gib in ("15", "16")
        }
        (volume,) = as_list(sizes["16"])
        assert sizes["15"] == []
        by_id: Value = {"name": "volume-id", "values": [volume]}
        described = call(client, function("ebs/getVolume"), {"filters": [by_id]})
        assert (described["volumeId"], described["size"]) == (volume, 16)
        assert described["tags"] == {"Name": "found", "project": "ant-media"}
        addresses = call(client, function("ec2/getEips"), {"filters": [named]})
        assert addresses["allocationIds"] == [address]
        (public,) = amazon.ec2.describe_addresses(AllocationIds=[address])["Addresses"]
        assert addresses["publicIps"] == [public["PublicIp"]]
        free = call(client, function("ec2/getElasticIp"), {"id": address})
        assert (free["publicIp"], free["instanceId"], free["networkInterfaceId"]) == (
            public["PublicIp"],
            "",
            "",
        )
        with pytest.raises(ProviderError, match="no matching EC2 EIP found"):
            call(client, function("ec2/getElasticIp"), {"id": "eipalloc-00000000000000000"})
        arm: Value = {"name": "architecture", "values": ["arm64"]}
        assert call(client, function("ec2/getInstances"), {"filters": [named, arm]})["ids"] == []
    offers = call(
        client,
        function("ec2/getInstanceTypeOfferings"),
        {
            "locationType": "availability-zone",
            "filters": [{"name": "instance-type", "values": ["t3.small", "t3.large"]}],
        },
    )
    locations, types = offers["locations"], offers["instanceTypes"]
    assert isinstance(locations, list)
    assert isinstance(types, list)
    assert ("eu-west-1a", "t3.small") in set(zip(locations, types, strict=True))


def test_get_ami_finds_an_image_by_its_id_and_returns_the_volume_size_as_text(amazon: Amazon) -> None:
    by_id: Properties = {"filters": [{"name": "image-id", "values": [DEBIAN_IMAGE]}]}
    image = call(AwsClient(settings(amazon)), function("ec2/getAmi"), by_id)
    devices = image["blockDeviceMappings"]
    assert isinstance(devices, list)
    (root,) = devices
    assert isinstance(root, dict)
    assert root["deviceName"] == image["rootDeviceName"]
    assert isinstance(root["ebs"], dict)
    assert root["ebs"]["volume_size"] == "8"


def test_get_service_quota_returns_the_quota_and_its_default(amazon: Amazon) -> None:
    given: Properties = {"serviceCode": "ec2", "quotaCode": "L-1216C47A"}
    found = call(AwsClient(settings(amazon)), function("servicequotas/getServiceQuota"), given)
    assert found["value"] == found["defaultValue"] == 256


def test_an_api_error_has_the_official_providers_text(amazon: Amazon) -> None:
    inputs, _ = BY_TOKEN["aws:ec2/subnet:Subnet"].check(
        {}, "n", {}, {"vpcId": "vpc-none", "cidrBlock": "10.0.0.0/24"}
    )
    with pytest.raises(ProviderError) as refused:
        BY_TOKEN["aws:ec2/subnet:Subnet"].create_resource(AwsClient(settings(amazon)), inputs)
    assert "creating EC2 Subnet: operation error EC2: CreateSubnet, https response error" in str(
        refused.value
    )
    assert "api error InvalidVpcID.NotFound" in str(refused.value)


def test_an_unknown_provider_setting_is_an_error_that_names_it(amazon: Amazon) -> None:
    failures = AwsProvider().check_config({**settings(amazon), "ignoreTags": {}})
    assert list(failures) == ["ignoreTags"]


def test_a_machine_that_never_runs_stays_in_the_state(
    amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AwsClient(settings(amazon))
    monkeypatch.setattr(client, "wait_timeout", 0)
    inputs, _ = INSTANCE.check({}, "n", {}, {"ami": DEBIAN_IMAGE, "instanceType": "t3.small"})
    stuck = replace(
        INSTANCE, finish_create=lambda client, _, __: client.wait("EC2 Instance to be running", lambda: False)
    )
    with pytest.raises(ResourceInitFailedError) as failed:
        stuck.create_resource(client, inputs)
    assert failed.value.resource_id == amazon.instances()[0]["InstanceId"]
    assert failed.value.state["instanceType"] == "t3.small"
    INSTANCE.delete_resource(AwsClient(settings(amazon)), failed.value.resource_id, failed.value.state)
    assert amazon.instances() == []


# ---- errors of AWS that moto does not raise, or raises with another text


@pytest.fixture
def client(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> AwsClient:
    """A client without retries for propagation."""
    monkeypatch.setattr(AwsClient, "propagation_timeout", 0)
    return AwsClient(settings(amazon))


@contextmanager
def existing(client: AwsClient, resource_type: AwsResourceType, given: Properties) -> Generator[str]:
    inputs, failures = resource_type.check({}, "n", {}, given)
    assert not failures
    resource_id, state = resource_type.create_resource(client, inputs)
    try:
        yield resource_id
    finally:
        resource_type.delete_resource(client, resource_id, state)


def machine(amazon: Amazon, **given: Value) -> Properties:
    return {"ami": DEBIAN_IMAGE, "instanceType": "t3.small", **given}


def test_a_role_with_a_policy_cannot_be_deleted(client: AwsClient) -> None:
    with existing(client, ROLE, {"name": "used", "assumeRolePolicy": TRUST}):
        client.iam.put_role_policy(
            RoleName="used", PolicyName="p", PolicyDocument=policy("s3:*", Resource="*")
        )
        with pytest.raises(ProviderError, match=r"deleting IAM Role \(used\): .*DeleteConflict"):
            ROLE.delete_resource(client, "used", {})
        client.iam.delete_role_policy(RoleName="used", PolicyName="p")


def test_a_deleted_role_is_removed_from_its_profiles(client: AwsClient) -> None:
    with existing(client, PROFILE, {"name": "held"}):
        with existing(client, ROLE, {"name": "held", "assumeRolePolicy": TRUST}):
            client.iam.add_role_to_instance_profile(InstanceProfileName="held", RoleName="held")
        assert client.iam.get_instance_profile(InstanceProfileName="held")["InstanceProfile"]["Roles"] == []


def test_a_role_with_a_malformed_trust_policy_is_not_created(client: AwsClient) -> None:
    inputs, _ = ROLE.check({}, "n", {}, {"name": "odd", "assumeRolePolicy": policy("s3:GetObject")})
    with pytest.raises(ProviderError, match=r"creating IAM Role: .*MalformedPolicyDocument"):
        ROLE.create_resource(client, inputs)
    assert ROLE.read_resource(client, "odd", inputs) is None


def test_the_policies_of_a_role_have_a_size_limit(client: AwsClient) -> None:
    def inputs(name: str, size: int) -> Properties:
        text = policy("s3:GetObject", Resource=f"arn:aws:s3:::{'a' * size}")
        return ROLE_POLICY.check({}, "n", {}, {"role": "wide", "name": name, "policy": text})[0]

    with existing(client, ROLE, {"name": "wide", "assumeRolePolicy": TRUST}):
        policy_id, state = ROLE_POLICY.create_resource(client, inputs("one", 6000))
        for name, size in (("one", 11000), ("two", 6000)):
            with pytest.raises(
                ProviderError, match="Maximum policy size of 10240 bytes exceeded for role wide"
            ):
                ROLE_POLICY.create_resource(client, inputs(name, size))
        ROLE_POLICY.update_resource(client, policy_id, state, inputs("one", 6000), inputs("one", 9000))
        ROLE_POLICY.delete_resource(client, policy_id, state)


def test_a_machine_with_a_missing_profile_is_refused(client: AwsClient, amazon: Amazon) -> None:
    inputs, _ = INSTANCE.check({}, "n", {}, machine(amazon, iamInstanceProfile="late"))
    with pytest.raises(
        ProviderError, match=r"RunInstances.* InvalidParameterValue.* Invalid IAM Instance Profile"
    ):
        INSTANCE.create_resource(client, inputs)
    without_role = pytest.raises(ProviderError, match="has no associated IAM Roles")
    with existing(client, PROFILE, {"name": "late"}), without_role:
        INSTANCE.create_resource(client, inputs)
    assert not amazon.instances()


def test_a_machine_waits_for_its_profile(amazon: Amazon) -> None:
    client, given = AwsClient(settings(amazon)), machine(amazon, iamInstanceProfile="late")
    joins = threading.Timer(
        0.5, lambda: client.iam.add_role_to_instance_profile(InstanceProfileName="late", RoleName="late")
    )
    with (
        existing(client, PROFILE, {"name": "late"}),
        existing(client, ROLE, {"name": "late", "assumeRolePolicy": TRUST}),
    ):
        joins.start()
        with existing(client, INSTANCE, given) as instance:
            assert amazon.get_profile_name(instance) == "late"


def test_a_machine_keeps_the_name_of_a_deleted_profile(client: AwsClient, amazon: Amazon) -> None:
    with existing(client, ROLE, {"name": "short", "assumeRolePolicy": TRUST}):
        with existing(client, PROFILE, {"name": "short", "role": "short"}):
            inputs, _ = INSTANCE.check({}, "n", {}, machine(amazon, iamInstanceProfile="short"))
            instance, state = INSTANCE.create_resource(client, inputs)
        found = INSTANCE.read_resource(client, instance, state)
        assert found
        assert found["iamInstanceProfile"] == "short"
        INSTANCE.delete_resource(client, instance, state)
    assert not amazon.ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]


def test_an_existing_secret_is_refused(client: AwsClient) -> None:
    given: Properties = {"name": "taken", "recoveryWindowInDays": 0}
    refused = pytest.raises(
        ProviderError, match=r"ResourceExistsException: .* the secret taken already exists"
    )
    with existing(client, SECRET, given), refused:
        SECRET.create_resource(client, SECRET.check({}, "n", {}, given)[0])


def test_an_existing_bucket_is_refused(client: AwsClient) -> None:
    given: Properties = {"bucket": "taken"}
    refused = pytest.raises(ProviderError, match=r"creating S3 Bucket: .*BucketAlreadyOwnedByYou")
    with existing(client, BUCKET, given), refused:
        BUCKET.create_resource(client, BUCKET.check({}, "n", {}, given)[0])


def test_an_existing_record_is_refused(client: AwsClient) -> None:
    zone = client.route53.list_hosted_zones()["HostedZones"][0]["Id"].rsplit("/", 1)[-1]
    taken: Properties = {"zoneId": zone, "name": "taken.example.test", "type": "A", "ttl": 60}
    refused = pytest.raises(
        ProviderError,
        match=r"InvalidChangeBatch: .*name='taken.example.test.', type='A'\] but it already exists",
    )
    with existing(client, RECORD, {**taken, "records": ["198.51.100.1"]}) as record:
        with refused:
            RECORD.create_resource(
                client, RECORD.check({}, "n", {}, {**taken, "records": ["198.51.100.2"]})[0]
            )
        state = RECORD.read_resource(client, record, taken)
        assert state
        assert state["records"] == ["198.51.100.1"]


def test_a_secret_in_its_recovery_window_keeps_its_name(client: AwsClient) -> None:
    given: Properties = {"name": "recoverable"}
    with existing(client, SECRET, given) as arn:
        pass
    assert SECRET.read_resource(client, arn, given) is None
    with pytest.raises(ProviderError, match="InvalidRequestException: You can't create this secret because"):
        SECRET.create_resource(client, SECRET.check({}, "n", {}, given)[0])
    client.secrets.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
