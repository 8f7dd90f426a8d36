"""The APIs of EC2, Route 53, IAM and Secrets Manager: moto's server and a client for the daemon."""

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
from sandbox.cloud.capacity import Capacity, respond_limit_exceeded
from sandbox.cloud.security_groups import Group, Members, Rule

AMIS = host.SANDBOX / "images/amis.json"
CALLS = host.STATE / "aws/calls"
ACCOUNT = "123456789012"
"""moto's default account."""


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


class Changes:
    """Records which API calls have changed something since the daemon last read the state."""

    def __init__(self) -> None:
        self.resources_changed = threading.Event()
        self.zones_changed = threading.Event()
        self._lock = threading.Lock()
        self._restarted: set[str] = set()

    def record(self, environ: WSGIEnvironment, body: bytes) -> None:
        """Records one API call."""
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
        self.resources_changed.set()

    def take_restarted(self) -> set[str]:
        """Returns and clears the ids of instances for which a reboot or stop was requested."""
        with self._lock:
            taken, self._restarted = self._restarted, set()
        return taken


def serve(changes: Changes) -> None:
    """Starts the API server in threads of this process."""
    # moto reads this variable on import. Its default list has hundreds of images that cannot boot here.
    os.environ["MOTO_AMIS_PATH"] = str(AMIS)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class QuietHandler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Suppresses access logs: the daemon's log is for errors."""

    _patch_public_addresses()
    _patch_record_deletion()
    moto, capacity = DomainDispatcherApplication(create_backend_app), Capacity()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if "pulumi" in environ.get("HTTP_USER_AGENT", "").lower():
            _record_provider_call(environ, body)
        if b"Action=RunInstances" in body and not capacity.reserve():
            return respond_limit_exceeded(start_response)
        response: Iterable[bytes] = moto(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET":
            changes.record(environ, body)
        return response

    server = make_server(addresses.API, 5000, application, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, name="api", daemon=True).start()


def _record_provider_call(environ: WSGIEnvironment, body: bytes) -> None:
    """Logs a call of the AWS provider; the end-to-end tests compare these calls with the permissions of CI's roles."""
    service = environ.get("HTTP_AUTHORIZATION", "").partition(",")[0].split("/")[-2:-1]
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    action = target or parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
    with CALLS.open("a") as calls:
        calls.write(" ".join([*service, environ["REQUEST_METHOD"], environ["PATH_INFO"], action]) + "\n")


def _patch_public_addresses() -> None:
    """Makes moto draw public addresses from one range, and keep Elastic IPs when an instance stops."""
    from moto.ec2.models import ec2_backends, elastic_ip_addresses, elastic_network_interfaces
    from moto.ec2.models.elastic_network_interfaces import NetworkInterface

    pool = itertools.cycle([str(address) for address in IPv4Network(addresses.PUBLIC).hosts()])

    def draw_address() -> str:
        backend = ec2_backends[ACCOUNT][addresses.REGION]
        taken = {item.public_ip for item in (*backend.addresses, *backend.enis.values())}
        return next(address for address in itertools.islice(pool, 254) if address not in taken)

    def find_elastic_address(interface: NetworkInterface) -> str | None:
        return next(
            (item.public_ip for item in interface.ec2_backend.addresses if item.eni is interface), None
        )

    def unless_elastic(change: Callable[[NetworkInterface], None]) -> Callable[[NetworkInterface], None]:
        return lambda interface: None if find_elastic_address(interface) else change(interface)

    for owner, name, patched in (
        (elastic_ip_addresses, "random_ip", draw_address),
        (elastic_network_interfaces, "random_public_ip", draw_address),
        (NetworkInterface, "stop", unless_elastic(NetworkInterface.stop)),
        (NetworkInterface, "start", unless_elastic(NetworkInterface.start)),
    ):
        setattr(owner, name, patched)


def _patch_record_deletion() -> None:
    """Makes moto forget deleted records; otherwise it may refuse to create them again."""
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

    def list_policies(self, role: str) -> list[dict[str, Any]]:
        """Returns the role's inline policies."""
        try:
            names = self._iam.list_role_policies(RoleName=role)["PolicyNames"]
            return [
                self._iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names
            ]
        except self._iam.exceptions.NoSuchEntityException:  # deleted after its credentials were issued
            return []

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
        is_public = self._public_subnets()
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
                if is_public(item["VpcId"], item["SubnetId"])
                else None,
                groups=tuple(
                    # moto stores groups at the instance or at its interfaces, depending on the request
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
                ingress=tuple(map(_parse_rule, group["IpPermissions"])),
                egress=tuple(map(_parse_rule, group["IpPermissionsEgress"])),
            )
            for group in self._ec2.describe_security_groups()["SecurityGroups"]
        }
        return Snapshot(tuple(found), groups)

    def _public_subnets(self) -> Callable[[str, str], bool]:
        """Returns a function of VPC and subnet: True if the subnet has a route to an internet gateway."""
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
