"""The official AWS provider's create, read, update and delete of each resource type that the program uses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.cloud import addresses
from tests.sandbox.cloud import provider_calls
from tests.sandbox.cloud.provider_calls import (
    POLICY,
    TAGS,
    WORLD,
    Api,
    Network,
    allocate,
    associate,
    by_id,
    create_gateway,
    create_group,
    create_network,
    create_profile,
    create_role,
    create_rule,
    create_subnet,
    create_vpc,
    delete_profile,
    delete_role,
    delete_rule,
    describe_instance,
    find_image,
    list_interfaces,
    modify_rule,
    primary_interface,
    read_address,
    read_instance,
    read_rule,
    read_vpc,
    refused,
    release,
    run_instance,
    start_api,
    stop_and_modify,
    terminate,
    wait_for,
    wait_for_state,
)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with start_api() as api:
        yield api


@pytest.fixture(scope="module")
def network(api: Api) -> Network:
    return create_network(api)


@pytest.fixture
def group(api: Api, network: Network) -> str:
    return create_group(api, network.vpc)


@pytest.fixture
def instance(api: Api, network: Network, group: str) -> Iterator[str]:
    instance = run_instance(api, network.subnet, group)
    yield instance
    terminate(api, instance)


# ---- provider


def test_sts_returns_the_account(api: Api) -> None:
    identity = api.sts.get_caller_identity()
    assert identity["Account"] == addresses.ACCOUNT
    assert identity["Arn"].startswith(f"arn:aws:sts::{addresses.ACCOUNT}:") or ":iam:" in identity["Arn"]


def test_service_quotas_return_vcpus_and_elastic_ips(api: Api) -> None:
    values = {
        code: api.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        for code in ("L-1216C47A", "L-0263D0A3")
    }
    assert values == {"L-1216C47A": 256.0, "L-0263D0A3": 20.0}
    with refused("NoSuchResourceException"):
        api.quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")


def test_instance_types_are_offered_by_zone(api: Api) -> None:
    offered = api.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=by_id("instance-type", "t3.small")
    )["InstanceTypeOfferings"]
    assert {offer["Location"] for offer in offered} == {f"{addresses.REGION}{zone}" for zone in "abc"}
    at = [*by_id("instance-type", "t3.small"), *by_id("location", f"{addresses.REGION}b")]
    (one,) = api.ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=at)[
        "InstanceTypeOfferings"
    ]
    assert one["LocationType"] == "availability-zone"
    with refused("InvalidInstanceType"):
        api.ec2.describe_instance_types(InstanceTypes=["t9.huge"])


def test_images_name_the_size_of_their_snapshot(api: Api) -> None:
    image = find_image(api)
    (mapping,) = image["BlockDeviceMappings"]
    assert mapping["DeviceName"] == image["RootDeviceName"]
    assert mapping["Ebs"]["VolumeSize"] == 8
    (snapshot,) = api.ec2.describe_snapshots(SnapshotIds=[mapping["Ebs"]["SnapshotId"]])["Snapshots"]
    assert snapshot["VolumeSize"] == 8


# ---- networks


def test_network_is_created_read_and_deleted(api: Api) -> None:
    network = create_network(api)
    vpc = read_vpc(api, network.vpc)
    assert (vpc["OwnerId"], vpc["IsDefault"], vpc["enableDnsSupport"], vpc["Tags"]) == (
        addresses.ACCOUNT,
        False,
        True,
        TAGS,
    )
    gateway = api.ec2.describe_internet_gateways(InternetGatewayIds=[network.gateway])["InternetGateways"][0]
    table = api.ec2.describe_route_tables(RouteTableIds=[network.table])["RouteTables"][0]
    subnet = api.ec2.describe_subnets(SubnetIds=[network.subnet])["Subnets"][0]
    assert {resource["OwnerId"] for resource in (gateway, table, subnet)} == {addresses.ACCOUNT}
    assert [association["SubnetId"] for association in table["Associations"]] == [network.subnet]
    provider_calls.delete_network(api, network)


def test_network_in_use_cannot_be_deleted(api: Api) -> None:
    network = create_network(api)
    group = create_group(api, network.vpc)
    instance = run_instance(api, network.subnet, group)
    with refused("DependencyViolation"):
        api.ec2.delete_subnet(SubnetId=network.subnet)
    with refused("DependencyViolation"):  # the instance has a public address
        api.ec2.detach_internet_gateway(InternetGatewayId=network.gateway, VpcId=network.vpc)
    with refused("DependencyViolation"):
        api.ec2.delete_internet_gateway(InternetGatewayId=network.gateway)
    with refused("DependencyViolation"):
        api.ec2.delete_route_table(RouteTableId=network.table)
    with refused("DependencyViolation"):
        api.ec2.delete_vpc(VpcId=network.vpc)
    interface = primary_interface(describe_instance(api, instance))["NetworkInterfaceId"]
    with refused("InvalidParameterValue"):
        api.ec2.delete_network_interface(NetworkInterfaceId=interface)
    terminate(api, instance)
    with refused("DependencyViolation"):  # the security group is left
        provider_calls.delete_network(api, network)
    api.ec2.delete_security_group(GroupId=group)
    api.ec2.delete_vpc(VpcId=network.vpc)


def test_gateway_of_a_stopped_machine_can_be_detached(api: Api) -> None:
    network = create_network(api)
    instance = run_instance(api, network.subnet, create_group(api, network.vpc))
    api.ec2.stop_instances(InstanceIds=[instance])
    api.ec2.detach_internet_gateway(InternetGatewayId=network.gateway, VpcId=network.vpc)
    terminate(api, instance)


def test_vpc_keeps_its_defaults_until_it_is_deleted(api: Api) -> None:
    vpc = create_vpc(api)
    found = read_vpc(api, vpc)
    with refused("CannotDelete"):
        api.ec2.delete_security_group(GroupId=found["group"])
    with refused("DependencyViolation"):
        api.ec2.delete_route_table(RouteTableId=found["table"])
    gateway = create_gateway(api, vpc)
    second = api.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    with refused("Resource.AlreadyAssociated"):
        api.ec2.attach_internet_gateway(InternetGatewayId=second, VpcId=vpc)
    with refused("DependencyViolation"):
        api.ec2.delete_vpc(VpcId=vpc)
    api.ec2.delete_internet_gateway(InternetGatewayId=second)
    provider_calls.delete_gateway(api, gateway, vpc)
    api.ec2.delete_vpc(VpcId=vpc)
    assert not api.ec2.describe_network_acls(Filters=by_id("vpc-id", vpc))["NetworkAcls"]


def test_route_table_refuses_another_network(api: Api, network: Network) -> None:
    vpc = create_vpc(api, "10.8.0.0/16")
    table = api.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    with refused("InvalidParameterValue"):
        api.ec2.create_route(RouteTableId=table, DestinationCidrBlock=WORLD, GatewayId=network.gateway)
    second = api.ec2.create_route_table(VpcId=network.vpc)["RouteTable"]["RouteTableId"]
    with refused("Resource.AlreadyAssociated"):
        api.ec2.associate_route_table(RouteTableId=second, SubnetId=network.subnet)
    for id in (table, second):
        api.ec2.delete_route_table(RouteTableId=id)
    api.ec2.delete_vpc(VpcId=vpc)


def test_deleted_subnet_frees_its_route_table(api: Api) -> None:
    network = create_network(api)
    api.ec2.delete_subnet(SubnetId=network.subnet)
    api.ec2.delete_route_table(RouteTableId=network.table)


# ---- security groups


def test_security_group_is_created_read_and_deleted(api: Api, network: Network) -> None:
    group = create_group(api, network.vpc)
    (found,) = api.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert (found["IpPermissions"], found["IpPermissionsEgress"], found["VpcId"], found["Tags"]) == (
        [],
        [],
        network.vpc,
        TAGS,
    )
    api.ec2.delete_security_group(GroupId=group)
    with refused("InvalidGroup.NotFound"):
        api.ec2.describe_security_groups(GroupIds=[group])


def test_rule_of_a_network_is_created_read_updated_and_deleted(api: Api, group: str) -> None:
    ranges = {"IpRanges": [{"CidrIp": WORLD, "Description": "HTTPS"}]}
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **ranges}
    rule = create_rule(api, group, permission)
    found = read_rule(api, rule)
    assert (found["Description"], found["CidrIpv4"], found["IsEgress"], found["GroupOwnerId"]) == (
        "HTTPS",
        WORLD,
        False,
        addresses.ACCOUNT,
    )
    with refused("InvalidPermission.Duplicate"):
        create_rule(api, group, permission)
    modify_rule(api, group, rule, IpProtocol="tcp", FromPort=80, ToPort=81, CidrIpv4="192.0.2.0/24")
    found = read_rule(api, rule)
    assert (found["FromPort"], found["ToPort"], found["CidrIpv4"]) == (80, 81, "192.0.2.0/24")
    assert "Description" not in found
    with refused("InvalidParameterValue"):
        modify_rule(api, group, rule, IpProtocol="tcp", FromPort=80, ToPort=81, CidrIpv6="::/0")
    delete_rule(api, group, rule)


def test_rule_of_a_group_has_description_and_owner(api: Api, network: Network, group: str) -> None:
    source, other = create_group(api, network.vpc), create_group(api, network.vpc)

    def permission(description: str) -> dict[str, Any]:
        pairs = {"UserIdGroupPairs": [{"GroupId": source, "Description": description}]}
        return {"IpProtocol": "tcp", "FromPort": 5080, "ToPort": 5080, **pairs}

    rule = create_rule(api, group, permission("from the balancer"))
    found = read_rule(api, rule)
    assert found["Description"] == "from the balancer"
    account = api.sts.get_caller_identity()["Account"]
    assert found["ReferencedGroupInfo"] == {"GroupId": source, "UserId": account}
    with refused("InvalidPermission.Duplicate"):
        create_rule(api, group, permission("again"))
    with refused("DependencyViolation"):
        api.ec2.delete_security_group(GroupId=source)
    modify_rule(
        api, group, rule, IpProtocol="tcp", FromPort=1, ToPort=2, ReferencedGroupId=other, Description="new"
    )
    found = read_rule(api, rule)
    assert (found["ReferencedGroupInfo"]["GroupId"], found["Description"]) == (other, "new")
    api.ec2.delete_security_group(GroupId=source)
    delete_rule(api, group, rule)


def test_rule_of_all_protocols_is_modified_without_ports(api: Api, group: str) -> None:
    ranges = {"IpRanges": [{"CidrIp": WORLD, "Description": "everything"}]}
    rule = create_rule(api, group, {"IpProtocol": "-1", **ranges}, egress=True)
    assert (read_rule(api, rule)["FromPort"], read_rule(api, rule)["ToPort"]) == (-1, -1)
    modify_rule(api, group, rule, IpProtocol="-1", CidrIpv4="10.0.0.0/8", Description="own network")
    found = read_rule(api, rule)
    assert (found["IpProtocol"], found["CidrIpv4"], found["Description"]) == (
        "-1",
        "10.0.0.0/8",
        "own network",
    )
    assert (found["FromPort"], found["ToPort"]) == (-1, -1)
    delete_rule(api, group, rule, egress=True)


# ---- instances


def test_instance_is_created_and_read(api: Api, group: str, instance: str) -> None:
    api.ec2.create_tags(Resources=[read_instance(api, instance)["volume"]["VolumeId"]], Tags=TAGS)
    found = read_instance(api, instance)
    interface = primary_interface(found)
    assert [group["GroupId"] for group in found["SecurityGroups"]] == [group]
    assert [group["GroupId"] for group in interface["Groups"]] == [group]
    assert interface["Attachment"]["DeleteOnTermination"] is True
    assert interface["Association"]["PublicIp"] == found["PublicIpAddress"]
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["attributes"]["disableApiTermination"] == {"Value": False}
    assert found["attributes"]["instanceInitiatedShutdownBehavior"] == {"Value": "stop"}
    assert found["credit"] == "standard"
    volume = found["volume"]
    described = {name: volume[name] for name in ("Size", "VolumeType", "Iops", "Throughput", "Encrypted")}
    assert described == {
        "Size": 16,
        "VolumeType": "gp3",
        "Iops": 3000,
        "Throughput": 125,
        "Encrypted": True,
    }
    assert volume["Tags"] == TAGS
    assert [mapping["DeviceName"] for mapping in found["BlockDeviceMappings"]] == [found["RootDeviceName"]]
    assert found["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is True


def test_instance_without_mapping_has_the_root_volume_of_its_image(
    api: Api, network: Network, group: str
) -> None:
    instance = run_instance(api, network.subnet, group, BlockDeviceMappings=[])
    found = read_instance(api, instance)
    assert [mapping["DeviceName"] for mapping in found["BlockDeviceMappings"]] == [found["RootDeviceName"]]
    assert (found["volume"]["Size"], found["volume"]["VolumeType"]) == (8, "gp3")
    terminate(api, instance)
    assert not api.ec2.describe_volumes(Filters=by_id("volume-id", found["volume"]["VolumeId"]))["Volumes"]


def test_instance_changes_its_security_groups(api: Api, network: Network, group: str, instance: str) -> None:
    other = create_group(api, network.vpc)
    interface = primary_interface(describe_instance(api, instance))["NetworkInterfaceId"]
    with refused("InvalidGroup.NotFound"):
        api.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=["sg-00000000000000000"]
        )
    api.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[other])
    found = describe_instance(api, instance)
    assert [group["GroupId"] for group in found["SecurityGroups"]] == [other]
    assert [group["GroupId"] for group in primary_interface(found)["Groups"]] == [other]
    with refused("DependencyViolation"):
        api.ec2.delete_security_group(GroupId=other)
    api.ec2.delete_security_group(GroupId=group)


def test_instance_changes_type_and_user_data_only_while_stopped(api: Api, instance: str) -> None:
    with refused("IncorrectInstanceState"):
        api.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.medium"})
    stop_and_modify(api, instance, InstanceType={"Value": "t3.medium"})
    with refused("InvalidParameterValue"):  # of another architecture
        stop_and_modify(api, instance, InstanceType={"Value": "t4g.small"})
    stop_and_modify(api, instance, UserData={"Value": b"#cloud-config\nnew: 1\n"})
    found = read_instance(api, instance)
    assert found["InstanceType"] == "t3.medium"
    assert found["attributes"]["userData"] == {"Value": provider_calls.encode("#cloud-config\nnew: 1\n")}


def test_instance_changes_metadata_options_and_volume(api: Api, instance: str) -> None:
    api.ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=2)
    wait_for(lambda: describe_instance(api, instance)["MetadataOptions"]["State"], "applied")
    options = describe_instance(api, instance)["MetadataOptions"]
    assert (options["HttpPutResponseHopLimit"], options["HttpTokens"]) == (2, "required")
    volume = read_instance(api, instance)["volume"]["VolumeId"]
    api.ec2.modify_volume(VolumeId=volume, Size=20)
    (modification,) = api.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    assert modification["ModificationState"] == "optimizing"
    assert read_instance(api, instance)["volume"]["Size"] == 20
    with refused("InvalidParameterValue"):
        api.ec2.modify_volume(VolumeId=volume, Size=16)
    with refused("IncorrectModificationState"):
        api.ec2.modify_volume(VolumeId=volume, Size=24)
    assert read_instance(api, instance)["volume"]["Size"] == 20


def test_instance_changes_its_profile(api: Api, network: Network, group: str) -> None:
    for name in ("first", "second"):
        create_profile(api, name)
    instance = run_instance(api, network.subnet, group, IamInstanceProfile={"Name": "first"})
    of_instance = by_id("instance-id", instance)

    def profile() -> tuple[str, str]:
        (association,) = api.ec2.describe_iam_instance_profile_associations(Filters=of_instance)[
            "IamInstanceProfileAssociations"
        ]
        shown = describe_instance(api, instance)["IamInstanceProfile"]
        assert shown["Arn"] == association["IamInstanceProfile"]["Arn"]
        return association["AssociationId"], shown["Arn"].rpartition("/")[2]

    association, name = profile()
    assert name == "first"
    api.ec2.replace_iam_instance_profile_association(
        AssociationId=association, IamInstanceProfile={"Name": "second"}
    )
    replaced, name = profile()
    assert name == "second"
    assert replaced != association
    unknown = {"Name": "unknown"}
    with refused("InvalidParameterValue"):
        api.ec2.replace_iam_instance_profile_association(AssociationId=replaced, IamInstanceProfile=unknown)
    with refused("InvalidParameterValue"):
        run_instance(api, network.subnet, group, IamInstanceProfile=unknown)
    terminate(api, instance)
    for name in ("first", "second"):
        delete_profile(api, name)


def test_stopped_instance_has_no_public_address_and_gets_another(api: Api, instance: str) -> None:
    before = describe_instance(api, instance)["PublicIpAddress"]
    api.ec2.stop_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "stopped")
    stopped = describe_instance(api, instance)
    assert "PublicIpAddress" not in stopped
    assert "Association" not in primary_interface(stopped)
    assert "Association" not in primary_interface(stopped)["PrivateIpAddresses"][0]
    assert not stopped.get("PublicDnsName")
    api.ec2.stop_instances(InstanceIds=[instance])
    with refused("IncorrectState"):
        api.ec2.reboot_instances(InstanceIds=[instance])
    api.ec2.start_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "running")
    after = describe_instance(api, instance)["PublicIpAddress"]
    assert after != before
    api.ec2.start_instances(InstanceIds=[instance])
    assert describe_instance(api, instance)["PublicIpAddress"] == after


def test_terminated_instance_is_gone(api: Api, network: Network, group: str) -> None:
    instance = run_instance(api, network.subnet, group, "10.0.32.9")
    terminate(api, instance)
    found = describe_instance(api, instance)
    assert (found["NetworkInterfaces"], found["SecurityGroups"]) == ([], [])
    assert "PublicIpAddress" not in found
    terminate(api, instance)
    with refused("IncorrectInstanceState"):
        api.ec2.start_instances(InstanceIds=[instance])
    assert not [
        interface
        for interface in list_interfaces(api, network.subnet)
        if interface["PrivateIpAddress"] == "10.0.32.9"
    ]


def test_private_address_is_used_once_and_free_after_termination(
    api: Api, network: Network, group: str
) -> None:
    first = run_instance(api, network.subnet, group, "10.0.32.8")
    count = len(api.ec2.describe_instances()["Reservations"])
    with refused("InvalidIPAddress.InUse"):
        run_instance(api, network.subnet, group, "10.0.32.8")
    assert len(api.ec2.describe_instances()["Reservations"]) == count
    terminate(api, first)
    terminate(api, run_instance(api, network.subnet, group, "10.0.32.8"))
    for address in ("10.0.0.8", "10.0.32.3"):  # outside the subnet; reserved
        with refused("InvalidParameterValue"):
            run_instance(api, network.subnet, group, address)


def test_invalid_instance_is_refused(api: Api, network: Network, group: str) -> None:
    image = find_image(api)
    small = [{"DeviceName": image["RootDeviceName"], "Ebs": {"VolumeSize": 4, "VolumeType": "gp3"}}]
    requests: list[tuple[str, dict[str, Any]]] = [
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": small}),
        ("InvalidParameterValue", {"InstanceType": "t9.huge"}),
        ("InvalidAMIID.NotFound", {"ImageId": "ami-0ffffffffffffffff"}),
        ("InvalidParameterValue", {"InstanceType": "t4g.small"}),  # of another architecture
    ]
    for code, request in requests:
        with refused(code):
            run_instance(api, network.subnet, group, **request)
    with refused("InvalidGroup.NotFound"):
        run_instance(api, network.subnet, "sg-00000000000000000")
    other = create_group(api, create_vpc(api, "10.9.0.0/16"))
    with refused("InvalidParameter"):
        run_instance(api, network.subnet, other)


def test_instance_type_must_be_offered_in_its_zone(api: Api, network: Network, group: str) -> None:
    everywhere = {"a", "b", "c"}
    zones: dict[str, set[str]] = {}
    for offer in api.ec2.describe_instance_type_offerings(LocationType="availability-zone")[
        "InstanceTypeOfferings"
    ]:
        zones.setdefault(offer["InstanceType"], set()).add(offer["Location"][-1])
    kind = min(kind for kind, offered in zones.items() if offered < everywhere)
    missing = min(everywhere - zones[kind])
    subnet = create_subnet(api, network.vpc, "10.0.224.0/19", missing)
    with refused("Unsupported"):
        run_instance(api, subnet, group, InstanceType=kind)
    api.ec2.delete_subnet(SubnetId=subnet)


def test_vcpus_beyond_the_quota_are_refused(api: Api, network: Network, group: str) -> None:
    big = run_instance(api, network.subnet, group, InstanceType="m5.24xlarge")
    second = run_instance(api, network.subnet, group, InstanceType="m5.24xlarge")
    with refused("VcpuLimitExceeded"):
        run_instance(api, network.subnet, group, InstanceType="m5.24xlarge")
    api.ec2.stop_instances(InstanceIds=[second])
    third = run_instance(api, network.subnet, group, InstanceType="m5.24xlarge")
    with refused("VcpuLimitExceeded"):
        api.ec2.start_instances(InstanceIds=[second])
    for instance in (big, second, third):
        terminate(api, instance)


def test_filters_find_resources_by_name_and_state(api: Api, network: Network, instance: str) -> None:
    allocation = allocate(api)
    for id, name in ((network.subnet, "a-subnet"), (instance, "an-edge1"), (allocation, "an-address")):
        api.ec2.create_tags(Resources=[id], Tags=[{"Key": "Name", "Value": name}])
    subnets = api.ec2.describe_subnets(
        Filters=[*by_id("tag:Name", "a-sub*"), *by_id("cidr-block", "10.0.32.0/19")]
    )["Subnets"]
    assert [subnet["SubnetId"] for subnet in subnets] == [network.subnet]
    addresses = api.ec2.describe_addresses(Filters=by_id("tag:Name", "an-address"))["Addresses"]
    assert [address["AllocationId"] for address in addresses] == [allocation]

    def find(name: str, state: str) -> list[str]:
        filters = [*by_id("tag:Name", name), *by_id("instance-state-name", state)]
        reservations = api.ec2.describe_instances(Filters=filters)["Reservations"]
        return [found["InstanceId"] for reservation in reservations for found in reservation["Instances"]]

    assert find("an-edge*", "running") == [instance]
    assert find("an-edge1", "stopped") == []
    assert find("another", "running") == []
    release(api, allocation)


# ---- Elastic IPs


def test_address_is_associated_read_and_released(api: Api, instance: str) -> None:
    assigned = describe_instance(api, instance)["PublicIpAddress"]
    allocation = allocate(api)
    association = associate(api, allocation, instance)
    found, address = describe_instance(api, instance), read_address(api, allocation)
    assert (address["InstanceId"], address["NetworkInterfaceId"], address["AssociationId"]) == (
        instance,
        primary_interface(found)["NetworkInterfaceId"],
        association,
    )
    assert address["PublicIp"] == found["PublicIpAddress"] != assigned
    with refused("InvalidIPAddress.InUse"):
        api.ec2.release_address(AllocationId=allocation)
    api.ec2.disassociate_address(AssociationId=association)
    assert "AssociationId" not in read_address(api, allocation)
    assert describe_instance(api, instance)["PublicIpAddress"] not in (address["PublicIp"], None)
    release(api, allocation)


def test_stopped_instance_keeps_its_elastic_ip(api: Api, instance: str) -> None:
    allocation = allocate(api)
    association = associate(api, allocation, instance)
    api.ec2.stop_instances(InstanceIds=[instance])
    wait_for_state(api, instance, "stopped")
    interface = primary_interface(describe_instance(api, instance))
    assert interface["Association"]["PublicIp"] == read_address(api, allocation)["PublicIp"]
    api.ec2.disassociate_address(AssociationId=association)
    assert "Association" not in primary_interface(describe_instance(api, instance))
    release(api, allocation)


def test_terminated_instance_frees_its_elastic_ip(api: Api, network: Network, group: str) -> None:
    first, second = (run_instance(api, network.subnet, group) for _ in range(2))
    allocation = allocate(api)
    associate(api, allocation, first)
    terminate(api, first)
    freed = read_address(api, allocation)
    assert not freed.keys() & {"AssociationId", "InstanceId", "NetworkInterfaceId", "PrivateIpAddress"}
    association = associate(api, allocation, second)
    api.ec2.disassociate_address(AssociationId=association)
    release(api, allocation)
    terminate(api, second)


def test_address_in_use_is_not_moved_without_permission(
    api: Api, network: Network, group: str, instance: str
) -> None:
    other = run_instance(api, network.subnet, group)
    allocation, second = allocate(api), allocate(api)
    association = associate(api, allocation, instance)
    with refused("Resource.AlreadyAssociated"):
        api.ec2.associate_address(AllocationId=allocation, InstanceId=other)
    assert read_address(api, allocation)["AssociationId"] == association
    api.ec2.associate_address(AllocationId=allocation, InstanceId=other, AllowReassociation=True)
    assert describe_instance(api, instance)["PublicIpAddress"] != read_address(api, allocation)["PublicIp"]
    associate(api, second, other)  # an interface has one address
    assert "AssociationId" not in read_address(api, allocation)
    terminate(api, other)
    release(api, allocation)
    release(api, second)


def test_address_needs_an_internet_gateway(api: Api) -> None:
    vpc = create_vpc(api)
    subnet, group = create_subnet(api, vpc), create_group(api, vpc)
    instance, allocation = run_instance(api, subnet, group), allocate(api)
    with refused("Gateway.NotAttached"):
        api.ec2.associate_address(AllocationId=allocation, InstanceId=instance)
    terminate(api, instance)
    release(api, allocation)


def test_addresses_beyond_the_quota_are_refused(api: Api) -> None:
    used = len(api.ec2.describe_addresses()["Addresses"])
    allocations = [allocate(api) for _ in range(20 - used)]
    with refused("AddressLimitExceeded"):
        api.ec2.allocate_address(Domain="vpc")
    for allocation in allocations:
        release(api, allocation)


# ---- Route 53


def test_record_is_created_read_updated_and_deleted(api: Api) -> None:
    zone = api.route53.create_hosted_zone(Name="example.test", CallerReference="contract")["HostedZone"]["Id"]

    def change(action: str, value: str) -> None:
        record = {
            "Name": "live.example.test",
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": value}],
        }
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        info = api.route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)["ChangeInfo"]
        wait_for(lambda: api.route53.get_change(Id=info["Id"])["ChangeInfo"]["Status"], "INSYNC")

    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.route53.list_resource_record_sets(
            HostedZoneId=zone, StartRecordName="live.example.test.", StartRecordType="A", MaxItems="1"
        )["ResourceRecordSets"]
        return [record for record in found if record["Type"] == "A"]

    change("CREATE", "198.51.100.7")
    assert read() == [
        {
            "Name": "live.example.test.",
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": "198.51.100.7"}],
        }
    ]
    with refused("InvalidChangeBatch"):
        change("CREATE", "198.51.100.8")
    change("UPSERT", "198.51.100.8")
    assert read()[0]["ResourceRecords"] == [{"Value": "198.51.100.8"}]
    change("DELETE", "198.51.100.8")
    assert read() == []
    change("CREATE", "198.51.100.9")
    with refused("HostedZoneNotEmpty"):
        api.route53.delete_hosted_zone(Id=zone)
    change("DELETE", "198.51.100.9")
    api.route53.delete_hosted_zone(Id=zone)


# ---- Secrets Manager


def test_secret_is_created_read_and_deleted(api: Api) -> None:
    created = api.secrets.create_secret(
        Name="letsencrypt", Description="certificates", ForceOverwriteReplicaSecret=False, Tags=TAGS
    )
    arn = created["ARN"]
    wait_for(lambda: api.secrets.describe_secret(SecretId=arn)["Name"], "letsencrypt")
    assert api.secrets.describe_secret(SecretId=arn)["Tags"] == TAGS
    assert api.secrets.get_resource_policy(SecretId=arn).get("ResourcePolicy") is None
    with refused("ResourceExistsException"):
        api.secrets.create_secret(Name="letsencrypt")
    api.secrets.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
    with refused("ResourceNotFoundException"):
        api.secrets.describe_secret(SecretId=arn)
    api.secrets.create_secret(Name="letsencrypt")


# ---- IAM


def test_role_with_policy_is_created_read_updated_and_deleted(api: Api) -> None:
    create_role(api, "balancer")
    with refused("EntityAlreadyExists"):
        create_role(api, "balancer")
    api.iam.put_role_policy(RoleName="balancer", PolicyName="dns", PolicyDocument=json.dumps(POLICY))
    assert api.iam.get_role_policy(RoleName="balancer", PolicyName="dns")["PolicyDocument"] == POLICY
    assert api.iam.list_attached_role_policies(RoleName="balancer")["AttachedPolicies"] == []
    with refused("DeleteConflict"):
        api.iam.delete_role(RoleName="balancer")
    with refused("MalformedPolicyDocument"):
        api.iam.create_role(RoleName="invalid", AssumeRolePolicyDocument="{}")
    statement = {**POLICY["Statement"][0], "Resource": [f"arn:aws:s3:::{'x' * 10240}"]}
    with refused("LimitExceeded"):
        large = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        api.iam.put_role_policy(RoleName="balancer", PolicyName="large", PolicyDocument=large)
    delete_role(api, "balancer")


def test_profile_is_created_read_and_deleted(api: Api) -> None:
    create_profile(api, "node")
    profiles = api.iam.list_instance_profiles_for_role(RoleName="node")["InstanceProfiles"]
    assert [profile["InstanceProfileName"] for profile in profiles] == ["node"]
    with refused("DeleteConflict"):
        api.iam.delete_instance_profile(InstanceProfileName="node")
    delete_profile(api, "node")
    with refused("NoSuchEntity"):
        api.iam.get_instance_profile(InstanceProfileName="node")


def test_user_with_key_is_created_read_and_deleted(api: Api) -> None:
    api.iam.create_user(UserName="uploader", Path="/", Tags=TAGS)
    assert api.iam.get_user(UserName="uploader")["User"]["Tags"] == TAGS
    api.iam.put_user_policy(UserName="uploader", PolicyName="put", PolicyDocument=json.dumps(POLICY))
    assert api.iam.get_user_policy(UserName="uploader", PolicyName="put")["PolicyDocument"] == POLICY
    keys = [api.iam.create_access_key(UserName="uploader")["AccessKey"]["AccessKeyId"] for _ in range(2)]
    with refused("LimitExceeded"):
        api.iam.create_access_key(UserName="uploader")
    with refused("DeleteConflict"):
        api.iam.delete_user(UserName="uploader")
    # What the provider calls with forceDestroy.
    api.iam.list_groups_for_user(UserName="uploader")
    found = api.iam.list_access_keys(UserName="uploader")["AccessKeyMetadata"]
    assert {key["AccessKeyId"] for key in found} == {*keys}
    for key in keys:
        api.iam.delete_access_key(UserName="uploader", AccessKeyId=key)
    api.iam.list_ssh_public_keys(UserName="uploader")
    api.iam.list_virtual_mfa_devices(AssignmentStatus="Assigned")
    api.iam.list_mfa_devices(UserName="uploader")
    with refused("NoSuchEntity"):
        api.iam.delete_login_profile(UserName="uploader")
    api.iam.list_signing_certificates(UserName="uploader")
    with refused("DeleteConflict"):
        api.iam.delete_user(UserName="uploader")
    api.iam.delete_user_policy(UserName="uploader", PolicyName="put")
    api.iam.delete_user(UserName="uploader")
    with refused("NoSuchEntity"):
        api.iam.get_user(UserName="uploader")


# ---- S3


def test_bucket_is_created_read_and_deleted(api: Api) -> None:
    bucket = {"Bucket": "recordings"}
    with refused("404"):
        api.s3.head_bucket(**bucket)
    where = {"LocationConstraint": addresses.REGION}
    api.s3.create_bucket(**bucket, CreateBucketConfiguration=where)
    with refused("BucketAlreadyOwnedByYou"):
        api.s3.create_bucket(**bucket, CreateBucketConfiguration=where)
    with refused("NoSuchTagSet"):
        api.s3.get_bucket_tagging(**bucket)
    api.s3.put_bucket_tagging(**bucket, Tagging={"TagSet": TAGS})
    assert api.s3.get_bucket_tagging(**bucket)["TagSet"] == TAGS
    # All that the provider reads of a new bucket.
    assert api.s3.get_bucket_location(**bucket)["LocationConstraint"] == addresses.REGION
    for absent, read in (
        ("NoSuchBucketPolicy", api.s3.get_bucket_policy),
        ("NoSuchCORSConfiguration", api.s3.get_bucket_cors),
        ("NoSuchWebsiteConfiguration", api.s3.get_bucket_website),
        ("NoSuchLifecycleConfiguration", api.s3.get_bucket_lifecycle_configuration),
        ("ReplicationConfigurationNotFoundError", api.s3.get_bucket_replication),
        ("ObjectLockConfigurationNotFoundError", api.s3.get_object_lock_configuration),
    ):
        with refused(absent):
            read(**bucket)
    assert api.s3.get_bucket_acl(**bucket)["Grants"]
    assert "Status" not in api.s3.get_bucket_versioning(**bucket)
    assert "Status" not in api.s3.get_bucket_accelerate_configuration(**bucket)
    api.s3.get_bucket_request_payment(**bucket)
    assert "LoggingEnabled" not in api.s3.get_bucket_logging(**bucket)
    # S3 encrypts the objects of every bucket (S3 User Guide, "Default encryption FAQ").
    (rule,) = api.s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    blocks = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    # A new bucket blocks public access and has no ACLs (S3 User Guide, "Default settings for new S3 buckets FAQ").
    assert api.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"] == blocks
    controls = api.s3.get_bucket_ownership_controls(**bucket)["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    api.s3.delete_public_access_block(**bucket)
    with refused("NoSuchPublicAccessBlockConfiguration"):
        api.s3.get_public_access_block(**bucket)
    api.s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=blocks)
    assert api.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"] == blocks
    api.s3.put_object(**bucket, Key="streams/a.mp4", Body=b"x")
    with refused("BucketNotEmpty"):
        api.s3.delete_bucket(**bucket)
    (version,) = api.s3.list_object_versions(**bucket)["Versions"]
    api.s3.delete_objects(
        **bucket, Delete={"Objects": [{"Key": version["Key"], "VersionId": version["VersionId"]}]}
    )
    api.s3.delete_bucket(**bucket)
    with refused("NoSuchBucket"):
        api.s3.delete_bucket(**bucket)


# ---- requests that moto cannot serve


def test_requests_that_moto_cannot_serve_are_client_errors(api: Api, network: Network) -> None:
    requests = (
        lambda: api.ec2.describe_capacity_blocks(),  # not implemented
        lambda: api.ec2.describe_instances(Filters=by_id("no-such-filter", "x")),
        lambda: api.ec2.modify_instance_attribute(
            InstanceId="i-00000000000000000", EnaSupport={"Value": True}
        ),
        lambda: api.iam.generate_service_last_accessed_details(
            Arn=f"arn:aws:iam::{addresses.ACCOUNT}:role/x"
        ),
        lambda: api.route53.list_cidr_collections(),
        lambda: api.secrets.replicate_secret_to_regions(SecretId="x", AddReplicaRegions=[{"Region": "x"}]),
        lambda: api.quotas.list_services(),
        lambda: api.sts.decode_authorization_message(EncodedMessage="x"),
    )
    codes: list[tuple[str, int]] = []
    for request in requests:
        with pytest.raises(provider_calls.ClientError) as failure:
            request()
        response = failure.value.response
        codes.append((response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]))
        if response["Error"]["Code"] == "UnsupportedOperation":
            assert "The local cloud cannot serve this request of" in response["Error"]["Message"]
    assert {status // 100 for _, status in codes} == {4}, codes
