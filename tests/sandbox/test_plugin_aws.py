"""The aws provider: its decisions one by one, and whole stacks under the real engine against moto's EC2 and Route 53."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pulumi_aws
import pytest
from moto.server import ThreadedMotoServer
from plugin_stack import Stack

from sandbox.plugins.aws.cloud import Cloud
from sandbox.plugins.aws.functions import FUNCTIONS, call
from sandbox.plugins.aws.kind import Kind
from sandbox.plugins.aws.plugin import KINDS, AwsProvider
from sandbox.plugins.properties import UNKNOWN, Properties
from sandbox.plugins.provider import NotReadyError, ProviderError

BY_TOKEN = {kind.token: kind for kind in KINDS}
INSTANCE = BY_TOKEN["aws:ec2/instance:Instance"]
SECURITY_GROUP = BY_TOKEN["aws:ec2/securityGroup:SecurityGroup"]
RECORD = BY_TOKEN["aws:route53/record:Record"]

REGION = "eu-west-1"


class Amazon:
    """moto's server and a client's view of it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.ec2 = self._client("ec2")
        self.route53 = self._client("route53")

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

    def left(self) -> dict[str, int]:
        """What is there, without what every account has from the start."""
        groups = self.ec2.describe_security_groups()["SecurityGroups"]
        return {
            "instances": len(self.instances()),
            "volumes": len(self.ec2.describe_volumes()["Volumes"]),
            "addresses": len(self.ec2.describe_addresses()["Addresses"]),
            "groups": len([group for group in groups if group["GroupName"] != "default"]),
            "gateways": len(self.ec2.describe_internet_gateways()["InternetGateways"]),
            "networks": len([vpc for vpc in self.ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]),
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
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    amazon = Amazon(server.get_host_and_port()[1])
    amazon.route53.create_hosted_zone(Name="example.test", CallerReference="test")
    yield amazon
    server.stop()


def settings(amazon: Amazon, **default_tags: str) -> Properties:
    return {
        "region": REGION,
        "accessKey": "test",
        "secretKey": "test",
        "skipCredentialsValidation": True,
        "skipRequestingAccountId": True,
        "endpoints": [{"ec2": amazon.url, "route53": amazon.url}],
        "defaultTags": {"tags": {"project": "ant-media", **default_tags}},
    }


def configure(stack: Stack, settings: Properties) -> None:
    stack.configure({f"aws:{name}": value for name, value in settings.items()})


@pytest.fixture
def aws(stack: Stack, amazon: Amazon) -> Stack:
    configure(stack, settings(amazon))
    return stack


# ---- what a change means


def change(kind: Kind, old: Properties, new: Properties, state: Properties | None = None) -> str:
    """`replace`, `update` or `same`."""
    before, after = (kind.check({}, "n", {}, given)[0] for given in (old, new))
    if kind.auto_named and "name" not in {**old, **new}:
        after["name"] = before["name"]
    diff = kind.diff(before, {**before, **(state or {})}, after)
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
}


@pytest.mark.parametrize(
    ("changed", "meaning"),
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
        ({"keyName": "other"}, "replace"),
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
    ],
)
def test_a_change_of_an_instance_replaces_or_updates(changed: Properties, meaning: str) -> None:
    chosen_by_aws: Properties = {"availabilityZone": "eu-west-1a", "associatePublicIpAddress": True}
    assert change(INSTANCE, MACHINE, {**MACHINE, **changed}, chosen_by_aws) == meaning


@pytest.mark.parametrize(
    "no_longer_given", ["subnetId", "privateIp", "vpcSecurityGroupIds", "metadataOptions"]
)
def test_no_longer_saying_what_aws_may_choose_changes_nothing(no_longer_given: str) -> None:
    rest = {name: value for name, value in MACHINE.items() if name != no_longer_given}
    assert change(INSTANCE, MACHINE, rest) == "same"


@pytest.mark.parametrize(
    ("token", "old", "changed", "meaning"),
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
    ],
)
def test_a_change_of_any_other_kind_replaces_or_updates(
    token: str, old: Properties, changed: Properties, meaning: str
) -> None:
    assert change(BY_TOKEN[token], old, {**old, **changed}) == meaning


def test_only_a_name_given_by_the_user_is_freed_before_it_is_taken_again() -> None:
    def replacing(given: Properties) -> bool:
        old, new = (
            SECURITY_GROUP.check({}, "web", {}, {**given, "description": text})[0] for text in ("a", "b")
        )
        return SECURITY_GROUP.diff(old, old, new).delete_before_replace

    assert replacing({"name": "web"})
    assert not replacing({})
    checked, _ = SECURITY_GROUP.check({}, "web", {}, {})
    assert str(checked["name"]).startswith("web-")
    again, _ = SECURITY_GROUP.check({}, "web", checked, {})
    assert again["name"] == checked["name"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"hibernation": True}, "hibernation"),
        ({"rootBlockDevice": {"snapshotId": "snap-1"}}, "rootBlockDevice.snapshotId"),
    ],
)
def test_a_property_that_is_not_known_is_named_with_its_type(given: Properties, named: str) -> None:
    _, failures = INSTANCE.check({}, "n", {}, {**MACHINE, **given})
    assert list(failures) == [named]
    assert "unknown property of aws:ec2/instance:Instance" in failures[named]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.token)
def test_every_property_is_one_of_the_sdk(kind: Kind) -> None:
    """The table may know fewer properties than pulumi_aws, never other ones."""
    module, name = kind.token.split(":")[1].split("/")[0], kind.token.rsplit(":", 1)[1]
    resource = getattr(getattr(pulumi_aws, module), name)
    arguments = getattr(inspect.getmodule(resource), f"{name}Args")
    assert kind.inputs <= names(arguments)
    assert kind.outputs | kind.inputs <= names(resource)
    if kind is INSTANCE:
        outputs = pulumi_aws.ec2.outputs
        classes = {
            "metadataOptions": outputs.InstanceMetadataOptions,
            "rootBlockDevice": outputs.InstanceRootBlockDevice,
        }
        for member, known in INSTANCE.members.items():
            assert known | INSTANCE.member_outputs.get(member, frozenset()) <= names(classes[member])


def names(sdk_class: type) -> set[str]:
    properties = inspect.getmembers(sdk_class, lambda member: isinstance(member, property))
    return {getattr(member.fget, "_pulumi_name", name) for name, member in properties}


def test_every_function_is_one_of_the_sdk() -> None:
    for token, (_, known) in FUNCTIONS.items():
        module, name = token.split(":")[1].split("/")[0], token.rsplit(":", 1)[1]
        where = pulumi_aws if module == "index" else getattr(pulumi_aws, module)
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        parameters = inspect.signature(getattr(where, snake)).parameters
        given = {each.split("_")[0] + "".join(w.title() for w in each.split("_")[1:]) for each in parameters}
        assert known <= given


# ---- whole stacks

CLUSTER = """
import pulumi
import pulumi_aws as aws

zones = aws.get_availability_zones(state="available")
ami = aws.ec2.get_ami(most_recent=True, owners=["amazon"], filters=[{"name": "name", "values": ["amzn-ami-hvm-*"]}])
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


def test_a_cluster_comes_up_changes_heals_and_leaves_nothing(aws: Stack, amazon: Amazon) -> None:
    before = amazon.left()

    # A preview knows what the program says, and nothing that only AWS can tell.
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

    # In place: the type, the groups, the disk, the metadata options, user data.
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

    # A machine ended by hand is noticed, and comes back at its address.
    amazon.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    assert "machine created" in aws.up("--refresh")
    (healed,) = amazon.instances()
    assert healed["InstanceId"] != instance["InstanceId"]
    assert healed["PrivateIpAddress"] == "10.9.0.8"

    # Replacing frees the address first, and takes along what is tied to the machine.
    done = aws.program(changed.replace('"encrypted": True', '"encrypted": False')).up()
    assert done.index("machine deleted original") < done.index("machine created replacement")
    assert "association-of-address created replacement" in done
    assert "record" not in done
    assert amazon.instances()[0]["PrivateIpAddress"] == "10.9.0.8"

    aws.run("destroy", "--yes")
    assert amazon.left() == before


def test_default_tags_reach_every_resource_and_follow_their_setting(aws: Stack, amazon: Amazon) -> None:
    aws.program(
        "import pulumi_aws as aws\naws.ec2.Eip('plain', domain='vpc')\n"
        "aws.ec2.Eip('own', domain='vpc', tags={'project': 'other', 'kind': 'test'})\n"
    ).up()
    configure(aws, settings(amazon, stage="test"))
    aws.up()
    tags = sorted(
        (sorted((tag["Key"], tag["Value"]) for tag in address["Tags"]))
        for address in amazon.ec2.describe_addresses()["Addresses"]
    )
    assert tags == [
        [("kind", "test"), ("project", "other"), ("stage", "test")],
        [("project", "ant-media"), ("stage", "test")],
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("aws.s3.Bucket('b')", "unknown resource type aws:s3/bucket:Bucket"),
        (
            "aws.ec2.Eip('e', address='198.51.100.1')",
            "property address value {198.51.100.1} has a problem: unknown property of aws:ec2/eip:Eip",
        ),
    ],
)
def test_a_program_that_uses_what_is_not_there_is_told_its_name(aws: Stack, program: str, said: str) -> None:
    shown = aws.program(f"import pulumi_aws as aws\n{program}\n").up(fails=True)
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("token", "arguments", "said"),
    [
        ("aws:ec2/getVpc:getVpc", {}, "unknown function aws:ec2/getVpc:getVpc"),
        ("aws:ec2/getAmi:getAmi", {"uefiData": "x"}, "unknown argument uefiData of aws:ec2/getAmi:getAmi"),
        (
            "aws:ec2/getAmi:getAmi",
            {"owners": ["amazon"], "filters": [{"name": "name", "values": ["none-*"]}]},
            "Your query returned no results. Please change your search criteria and try again.",
        ),
        ("aws:ec2/getSubnet:getSubnet", {"cidrBlock": "192.0.2.0/24"}, "no matching EC2 Subnet found"),
        ("aws:route53/getZone:getZone", {"name": "nowhere.test"}, "no matching Route 53 Hosted Zone found"),
    ],
)
def test_a_function_that_finds_nothing_says_so(
    amazon: Amazon, token: str, arguments: Properties, said: str
) -> None:
    with pytest.raises(ProviderError, match=said):
        call(Cloud(settings(amazon)), token, arguments)


def test_what_the_api_refuses_is_told_with_its_words(amazon: Amazon) -> None:
    inputs, _ = BY_TOKEN["aws:ec2/subnet:Subnet"].check(
        {}, "n", {}, {"vpcId": "vpc-none", "cidrBlock": "10.0.0.0/24"}
    )
    with pytest.raises(ProviderError) as refused:
        BY_TOKEN["aws:ec2/subnet:Subnet"].create_now(Cloud(settings(amazon)), inputs)
    assert "creating EC2 Subnet: operation error CreateSubnet, https response error" in str(refused.value)
    assert "api error InvalidVpcID.NotFound" in str(refused.value)


def test_a_setting_that_is_not_known_is_named(amazon: Amazon) -> None:
    failures = AwsProvider().check_config({**settings(amazon), "ignoreTags": {}})
    assert list(failures) == ["ignoreTags"]


def test_a_machine_that_never_runs_is_kept_in_the_state(
    amazon: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud(settings(amazon))
    monkeypatch.setattr(cloud, "patience", 0)
    images = amazon.ec2.describe_images(Owners=["amazon"])["Images"]
    inputs, _ = INSTANCE.check({}, "n", {}, {"ami": images[0]["ImageId"], "instanceType": "t3.small"})
    stuck = replace(
        INSTANCE, ready=lambda cloud, _, __: cloud.wait("EC2 Instance to be running", lambda: False)
    )
    with pytest.raises(NotReadyError) as failed:
        stuck.create_now(cloud, inputs)
    assert failed.value.resource_id == amazon.instances()[0]["InstanceId"]
    assert failed.value.state["instanceType"] == "t3.small"
    INSTANCE.delete_now(Cloud(settings(amazon)), failed.value.resource_id, failed.value.state)
    assert amazon.instances() == []
