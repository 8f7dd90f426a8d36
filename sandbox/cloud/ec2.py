"""The APIs of EC2, Route 53, IAM and Secrets Manager: moto's server, and what the rest of the cloud reads out of it."""

import base64
import io
import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3

from sandbox.cloud import addresses, host
from sandbox.cloud.capacity import Capacity, refuse
from sandbox.cloud.security_groups import Group, Members, Rule

AMIS = host.SANDBOX / "images/amis.json"
CALLS = host.STATE / "aws/calls"
ACCOUNT = "123456789012"
"""moto's."""


@dataclass(frozen=True)
class Instance:
    """What EC2 says about an instance that has not been terminated."""

    id: str
    name: str
    running: bool
    image: str
    type: str
    zone: str
    vpc: str
    private_address: str
    network: IPv4Network
    """The subnet's."""
    public_address: str | None
    """None also where the subnet has no route to an internet gateway: as useless there as in EC2."""
    groups: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """All that machines and networks are made from."""

    instances: tuple[Instance, ...] = ()
    groups: dict[str, Group] = field(default_factory=dict[str, Group])

    @property
    def members(self) -> Members:
        found: dict[str, list[str]] = defaultdict(list)
        for instance in self.instances:
            for group in instance.groups:
                found[group].append(instance.private_address)
        return found


class Changes:
    """What was asked of the API since the last look, as far as a look at its state would not show it."""

    def __init__(self) -> None:
        self.happened = threading.Event()
        self.zones_changed = threading.Event()
        self._lock = threading.Lock()
        self._restarted: set[str] = set()

    def note(self, environ: WSGIEnvironment, body: bytes) -> None:
        if "/hostedzone" in environ.get("PATH_INFO", ""):
            self.zones_changed.set()
            return
        query = parse_qs(body.decode(errors="replace"))
        action = query.get("Action", [""])[0]
        if action.startswith(("Describe", "Get", "List")):
            return
        if action in ("RebootInstances", "StopInstances"):
            with self._lock:
                self._restarted |= {ids[0] for name, ids in query.items() if name.startswith("InstanceId")}
        self.happened.set()

    def restarted(self) -> set[str]:
        """Ids of the instances that were told to reboot or stop; each is told once."""
        with self._lock:
            taken, self._restarted = self._restarted, set()
        return taken


def serve(changes: Changes) -> None:
    """Starts the API in threads of this process; returns when it answers."""
    # Before moto is imported: it reads this once. Its own list has hundreds of images that nothing here can boot.
    os.environ["MOTO_AMIS_PATH"] = str(AMIS)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class QuietHandler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The daemon's log is for what goes wrong."""

    _mend_public_addresses()
    _mend_zones()
    moto, capacity = DomainDispatcherApplication(create_backend_app), Capacity()

    def noting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if "pulumi" in environ.get("HTTP_USER_AGENT", "").lower():
            _keep(environ, body)
        if b"Action=RunInstances" in body and not capacity.take():
            return refuse(start_response)
        response: Iterable[bytes] = moto(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            changes.note(environ, body)
        return response

    server = make_server(addresses.API, 5000, noting, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, name="api", daemon=True).start()


def _keep(environ: WSGIEnvironment, body: bytes) -> None:
    """What the provider asks for, so that tests can hold it against what the roles of CI may do."""
    service = environ.get("HTTP_AUTHORIZATION", "").partition(",")[0].split("/")[-2:-1]
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    action = target or parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
    with CALLS.open("a") as calls:
        calls.write(" ".join([*service, environ["REQUEST_METHOD"], environ["PATH_INFO"], action]) + "\n")


def _mend_public_addresses() -> None:
    """moto draws public addresses from anywhere, and forgets an elastic one when its instance stops."""
    from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
    from moto.ec2.models.elastic_network_interfaces import NetworkInterface

    turn = itertools.cycle([str(address) for address in IPv4Network(addresses.PUBLIC).hosts()])

    def draw() -> str:
        backend = ec2_backends[ACCOUNT][addresses.REGION]
        taken = {item.public_ip for item in (*backend.addresses, *backend.enis.values())}
        return next(address for address in itertools.islice(turn, 254) if address not in taken)

    def elastic(interface: NetworkInterface) -> str | None:
        return next(
            (item.public_ip for item in interface.ec2_backend.addresses if item.eni is interface), None
        )

    def unless_elastic(change: Callable[[NetworkInterface], None]) -> Callable[[NetworkInterface], None]:
        return lambda interface: None if elastic(interface) else change(interface)

    for owner, name, mended in (
        (elastic_ip_addresses, "random_ip", draw),
        (elastic_network_interfaces, "random_public_ip", draw),
        (NetworkInterface, "stop", unless_elastic(NetworkInterface.stop)),
        (NetworkInterface, "start", unless_elastic(NetworkInterface.start)),
    ):
        setattr(owner, name, mended)


def _mend_zones() -> None:
    """moto keeps a deleted record in mind, and may refuse to have it created again."""
    from moto.route53.models import FakeZone

    delete = FakeZone.delete_rrset

    def delete_and_forget(self: FakeZone, rrset: dict[str, Any]) -> None:
        delete(self, rrset)
        name = rrset["Name"].strip(".")
        self.rr_changes[:] = [
            change
            for change in self.rr_changes
            if (known := change["ResourceRecordSet"])["Name"] != name or known["Type"] != rrset["Type"]
        ]

    FakeZone.delete_rrset = delete_and_forget


class Client:
    """What the cloud itself asks of the API."""

    def __init__(self) -> None:
        self._session = boto3.Session("test", "test", region_name=addresses.REGION)
        self._ec2 = self._session.client("ec2", endpoint_url=addresses.API_URL)
        self._route53 = self._session.client("route53", endpoint_url=addresses.API_URL)

    # Not every cloud needs them, and they take a while to load.

    @cached_property
    def _iam(self) -> Any:
        return self._session.client("iam", endpoint_url=addresses.API_URL)

    @cached_property
    def _secrets(self) -> Any:
        return self._session.client("secretsmanager", endpoint_url=addresses.API_URL)

    def create_zone(self, name: str) -> None:
        self._route53.create_hosted_zone(Name=name, CallerReference=name)

    def stop(self, instance: str) -> None:
        self._ec2.stop_instances(InstanceIds=[instance])

    def user_data(self, instance: str) -> bytes:
        answer = self._ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        return base64.b64decode(answer["UserData"].get("Value", ""))

    def role_of(self, instance: str) -> str | None:
        """The role in the instance's profile."""
        filters = [{"Name": "instance-id", "Values": [instance]}]
        answer = self._ec2.describe_iam_instance_profile_associations(Filters=filters)
        for association in answer["IamInstanceProfileAssociations"]:
            profile = association["IamInstanceProfile"]["Arn"].rpartition("/")[2]
            roles = self._iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
            return roles[0]["RoleName"] if roles else None
        return None

    def policies_of(self, role: str) -> list[dict[str, Any]]:
        """The role's inline policies."""
        try:
            names = self._iam.list_role_policies(RoleName=role)["PolicyNames"]
            return [
                self._iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names
            ]
        except (
            self._iam.exceptions.NoSuchEntityException
        ):  # it was deleted after its credentials were given out
            return []

    def arn_of_secret(self, secret: str) -> str | None:
        try:
            arn: str = self._secrets.describe_secret(SecretId=secret)["ARN"]
        except self._secrets.exceptions.ResourceNotFoundException:
            return None
        return arn

    def image_of(self, ami: str) -> str:
        """The name of the machine image that stands behind an AMI; empty for one that the cloud does not have."""
        images = self._ec2.describe_images(Filters=[{"Name": "image-id", "Values": [ami]}])["Images"]
        tags = (tag for image in images for tag in image.get("Tags", []))
        return next((tag["Value"] for tag in tags if tag["Key"] == "sandbox-image"), "")

    def world(self) -> World:
        subnets: dict[str, IPv4Network] = {
            subnet["SubnetId"]: IPv4Network(subnet["CidrBlock"])
            for subnet in self._ec2.describe_subnets()["Subnets"]
        }
        public = self._public_subnets()
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
                if public(item["VpcId"], item["SubnetId"])
                else None,
                groups=tuple(
                    # moto keeps them at the instance or at its interfaces, as they were given
                    {
                        group["GroupId"]
                        for groups in (
                            item["SecurityGroups"],
                            *(nic["Groups"] for nic in item["NetworkInterfaces"]),
                        )
                        for group in groups
                    }
                ),
            )
            for page in self._ec2.get_paginator("describe_instances").paginate(Filters=states)
            for reservation in page["Reservations"]
            for item in reservation["Instances"]
        ]
        groups = {
            group["GroupId"]: Group(
                id=group["GroupId"],
                name=group["GroupName"],
                ingress=tuple(map(_rule, group["IpPermissions"])),
                egress=tuple(map(_rule, group["IpPermissionsEgress"])),
            )
            for group in self._ec2.describe_security_groups()["SecurityGroups"]
        }
        return World(tuple(found), groups)

    def _public_subnets(self) -> Callable[[str, str], bool]:
        """Whether a subnet (of a VPC) has a route to an internet gateway, in its own route table or the VPC's main one."""
        tables: dict[str, bool] = {}
        for table in self._ec2.describe_route_tables()["RouteTables"]:
            routed = any(
                route.get("GatewayId", "").startswith("igw-")
                and route.get("DestinationCidrBlock") == "0.0.0.0/0"
                for route in table["Routes"]
            )
            for association in table["Associations"]:
                tables[association.get("SubnetId") or table["VpcId"]] = routed
        return lambda vpc, subnet: tables.get(subnet, tables.get(vpc, False))

    def records(self) -> list[tuple[str, str, int, str]]:
        """All that Route 53 holds: name, type, time to live, value."""
        return [
            (record["Name"], record["Type"], record.get("TTL", 60), value["Value"])
            for zone in self._route53.list_hosted_zones()["HostedZones"]
            for page in self._route53.get_paginator("list_resource_record_sets").paginate(
                HostedZoneId=zone["Id"]
            )
            for record in page["ResourceRecordSets"]
            for value in record.get("ResourceRecords", [])
        ]


def _rule(permission: dict[str, Any]) -> Rule:
    return Rule(
        protocol=permission["IpProtocol"],
        from_port=permission.get("FromPort", -1),
        to_port=permission.get("ToPort", -1),
        networks=tuple(sorted(item["CidrIp"] for item in permission.get("IpRanges", []))),
        groups=tuple(sorted(item["GroupId"] for item in permission.get("UserIdGroupPairs", []))),
    )
