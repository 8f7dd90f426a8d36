"""Runs the whole program with Pulumi's mocks and records the resources that it registers."""

import asyncio
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pulumi.runtime import mocks

from tests.project import PROJECT

PROGRAM = PROJECT / "__main__.py"

SECRETS = {
    "sshPrivateKey": Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    .decode(),
    "sshHostKeySeed": "5eed" * 16,
    "databasePassword": "the-database-password",
    "statisticsPassword": "the-statistics-password",
    "panelPassword": "the-panel-password",
    "licenseKey": "the-licence-key",
}
TAGS = {"project": "ant-media-cluster", "stack": "unit", "owner": "the-team"}
SETTINGS: dict[str, object] = {
    "domain": "live.ant-media.test",
    "adminCidrs": ["203.0.113.20/32"],
    "acme": {"email": "operator@ant-media.test"},
}


@dataclass
class Run(mocks.Mocks):
    """One run of the program: AWS's answers to its lookups, and the resources in the order of their registration."""

    zones: tuple[str, ...] = ("eu-west-1a", "eu-west-1b", "eu-west-1c")
    lacking: Mapping[str, str] = field(default_factory=dict[str, str])
    """An instance type that a zone does not offer, by zone."""
    images: bool = True
    snapshot_gib: int = 8
    image_architecture: str = "x86_64"
    """Of an image that the settings name by its id."""
    vcpu_quota: int = 256
    current_zones: Mapping[str, str] = field(default_factory=dict[str, str])
    """Zones of the stack's subnets, by CIDR."""
    stopped: tuple[str, ...] = ()
    """Names of stopped machines."""
    running_addresses: tuple[str, ...] = ()
    """Private addresses of the machines that run already."""
    running_arm: tuple[str, ...] = ()
    """Those of them that are arm64."""
    running_database: tuple[str, ...] = ()
    """Private address of the database, if it runs."""
    volumes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Sizes of the root volumes of the machines that run already, in GiB, by the machine's name."""
    elastic_ips: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """Elastic IPs by allocation id, with instanceId, networkInterfaceId and the tag Name."""
    registry: str = "5eed"
    """The id of the registry's data."""
    error: str = ""
    """The error that every AWS call returns."""
    dry_run: bool = False
    subnets: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    subnet_name: str = ""
    """`Name` tag of these subnets."""
    default_route: Mapping[str, str] | None = field(default_factory=lambda: {"gatewayId": "igw-1"})
    """The target of 0.0.0.0/0 in the main route table."""
    subnet_routes: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """The same in the route tables of single subnets."""
    used_addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who uses a private address: the `Name` tag of an instance, empty for something else."""
    resources: list[mocks.MockResourceArgs] = field(default_factory=list[mocks.MockResourceArgs])
    protected: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Types and names of the protected resources."""
    ignored_changes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By resource name."""
    replace_on_changes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By resource name."""
    dependencies: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Names of the resources that a resource depends on, by type and name."""
    error_hooks: list[pulumi.ErrorHook] = field(default_factory=list[pulumi.ErrorHook])
    hooked: set[str] = field(default_factory=set[str])
    """Names of the resources whose failures a hook explains."""
    rerun_after_failure: set[str] = field(default_factory=set[str])
    """Names of resources that the engine deletes before it creates them again, whatever input changes."""
    errors: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    bucket_regions: Mapping[str, str] = field(default_factory=dict[str, str])
    """The regions of existing buckets, by name."""
    retained: set[str] = field(default_factory=set[str])
    """Names of the resources that stay in AWS when the stack is destroyed."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources.append(args)
        outputs = {**args.inputs}
        if args.typ == "aws:ec2/eip:Eip":
            outputs |= {"publicIp": "198.51.100.1", "allocationId": "eipalloc-1"}
        if args.typ == "aws:secretsmanager/secret:Secret":
            outputs |= {
                "arn": f"arn:aws:secretsmanager:eu-west-1:123456789012:secret:{args.inputs['name']}-AbCdEf"
            }
        if args.typ.startswith("aws:iam/"):
            outputs |= {"name": args.name}
        if args.typ == "aws:iam/accessKey:AccessKey":
            outputs |= {"secret": "the-secret-key"}
        if args.typ == "aws:ec2/instance:Instance":
            outputs |= {"publicIp": "198.51.100.2"}
        if args.name == "database-valkey":
            outputs |= {"stdout": f"Installing valkey\nRegistry {self.registry}"}
        return f"{args.name}-id", outputs

    def register_error_hook(self, hook: pulumi.ErrorHook) -> "asyncio.Future[None]":
        self.error_hooks.append(hook)
        registered: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        registered.set_result(None)
        return registered

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        if self.error:
            return {}, [("", self.error)]
        match args.token:
            case "aws:ec2/getAmi:getAmi" if not self.images:
                return {}, [("", "your query returned no results")]
            case "aws:ec2/getAmi:getAmi":
                given = {entry["name"]: entry["values"][0] for entry in args.args["filters"]}
                root = {"deviceName": "/dev/xvda", "ebs": {"volume_size": str(self.snapshot_gib)}}
                architecture = self.image_architecture if "image-id" in given else given["architecture"]
                owner = args.args.get("owners", [""])[0]
                suffix = "" if architecture == "x86_64" else f"-{architecture}"
                return {
                    "id": given.get("image-id") or f"ami-of-{owner}{suffix}",
                    "architecture": architecture,
                    "rootDeviceName": "/dev/xvda",
                    "blockDeviceMappings": [{**root, "noDevice": "", "virtualName": ""}],
                }, []
            case "aws:ec2/getInstanceType:getInstanceType":
                if args.args["instanceType"] == "c99.large":
                    return {}, [("", "no matching EC2 Instance Type found")]
                arm = args.args["instanceType"].startswith(("c7g", "t4g"))
                return {
                    "memorySize": 4096,
                    "defaultVcpus": 4,
                    "supportedArchitectures": ["arm64" if arm else "x86_64"],
                }, []
            case "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings":
                names = args.args["filters"][0]["values"]
                offers = [
                    (zone, name) for zone in self.zones for name in names if self.lacking.get(zone) != name
                ]
                return {
                    "locations": [zone for zone, _ in offers],
                    "instanceTypes": [name for _, name in offers],
                    "locationTypes": ["availability-zone"] * len(offers),
                }, []
            case "aws:ec2/getSubnets:getSubnets":
                return {"ids": [f"subnet-of-{cidr}" for cidr in self.current_zones]}, []
            case "aws:ec2/getRouteTable:getRouteTable" if target := self.subnet_routes.get(
                args.args.get("subnetId", "")
            ):
                return {
                    "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": "", "natGatewayId": "", **target}]
                }, []
            case "aws:ec2/getRouteTable:getRouteTable" if "subnetId" in args.args:
                return {}, [
                    ("", "query returned no results. Please change your search criteria and try again")
                ]
            case "aws:ec2/getRouteTable:getRouteTable":
                target = self.default_route
                route = {"cidrBlock": "0.0.0.0/0", "gatewayId": "", "natGatewayId": "", **(target or {})}
                return {"routes": [] if target is None else [route]}, []
            case "aws:ec2/getNetworkInterfaces:getNetworkInterfaces":
                (values,) = (f["values"] for f in args.args["filters"] if f["name"] != "subnet-id")
                return {
                    "ids": [
                        f"eni-{address}"
                        for address, name in self.used_addresses.items()
                        if address in values or f"i-{name}" in values
                    ]
                }, []
            case "aws:ec2/getNetworkInterface:getNetworkInterface":
                address = args.args["id"].removeprefix("eni-")
                name = self.used_addresses[address]
                return {
                    "id": args.args["id"],
                    "description": "NAT gateway",
                    "privateIps": [address],
                    "attachments": [{"instanceId": f"i-{name}"}] if name else [],
                }, []
            case "aws:ec2/getInstances:getInstances" if "shutting-down" in args.args["instanceStateNames"]:
                names = {
                    name.removeprefix("ant-media-cluster-unit-") for name in args.args["filters"][0]["values"]
                }
                return {"ids": [f"i-{name}" for name in self.used_addresses.values() if name in names]}, []
            case "aws:ec2/getInstances:getInstances":
                if "running" in args.args["instanceStateNames"]:
                    given = {entry["name"]: entry["values"][0] for entry in args.args["filters"]}
                    found = (
                        self.running_database
                        if given["tag:Name"].endswith("-database")
                        else self.running_arm
                        if given.get("architecture") == "arm64"
                        else self.running_addresses
                    )
                    return {"ids": [], "privateIps": list(found)}, []
                return {"ids": [f"i-{name}" for name in self.stopped], "privateIps": []}, []
            case "aws:ec2/getInstance:getInstance":
                name = args.args["instanceId"].removeprefix("i-")
                return {"id": f"i-{name}", "tags": {"Name": f"ant-media-cluster-unit-{name}"}}, []
            case "aws:ebs/getEbsVolumes:getEbsVolumes":
                given = {entry["name"]: entry["values"] for entry in args.args["filters"]}
                return {
                    "ids": [
                        f"vol-{name}"
                        for name, gib in self.volumes.items()
                        if f"ant-media-cluster-unit-{name}" in given["tag:Name"]
                        and str(gib) in given.get("size", [str(gib)])
                    ]
                }, []
            case "aws:ebs/getVolume:getVolume":
                ((id,),) = (entry["values"] for entry in args.args["filters"])
                name = id.removeprefix("vol-")
                tags = {"Name": f"ant-media-cluster-unit-{name}"}
                return {"volumeId": id, "size": self.volumes[name], "tags": tags}, []
            case "aws:ec2/getElasticIp:getElasticIp" if args.args["id"] in self.elastic_ips:
                found = self.elastic_ips[args.args["id"]]
                ids = {key: found.get(key, "") for key in ("instanceId", "networkInterfaceId")}
                return {**ids, "publicIp": "198.51.100.7", "tags": {"Name": found.get("Name", "")}}, []
            case "aws:ec2/getElasticIp:getElasticIp":
                return {}, [("", "no matching EC2 EIP found")]
            case "aws:ec2/getEips:getEips":
                return {"publicIps": [], "allocationIds": []}, []
            case "aws:servicequotas/getServiceQuota:getServiceQuota":
                return {"value": self.vcpu_quota}, []
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                return {"names": list(self.zones)}, []
            case "aws:ec2/getSubnet:getSubnet" if args.args["id"].startswith("subnet-of-"):
                cidr = args.args["id"].removeprefix("subnet-of-")
                return {
                    "id": args.args["id"],
                    "cidrBlock": cidr,
                    "availabilityZone": self.current_zones[cidr],
                    "vpcId": "",
                    "tags": {},
                }, []
            case "aws:ec2/getSubnet:getSubnet":
                cidr, vpc = self.subnets[args.args["id"]]
                zone = self.zones[0]
                return {
                    "id": args.args["id"],
                    "cidrBlock": cidr,
                    "vpcId": vpc,
                    "availabilityZone": zone,
                    "tags": {"Name": self.subnet_name} if self.subnet_name else {},
                }, []
            case "aws:route53/getZone:getZone":
                return {"zoneId": "ZONE"}, []
            case "aws:index/getCallerIdentity:getCallerIdentity":
                return {"accountId": "123456789012"}, []
            case "aws:index/getRegion:getRegion":
                return {"region": "eu-west-1"}, []
            case "aws:s3/getBucket:getBucket" if region := self.bucket_regions.get(args.args["bucket"]):
                return {"bucketRegion": region}, []
            case "aws:s3/getBucket:getBucket":
                return {}, [("", "reading S3 Bucket: couldn't find resource")]
            case _:
                raise AssertionError(f"the program asked for {args.token}")

    def of_type(self, typ: str) -> dict[str, dict[str, Any]]:
        """Returns the inputs of all resources of a type, by resource name."""
        return {resource.name: resource.inputs for resource in self.resources if resource.typ == typ}


class Monitor(mocks.MockMonitor):
    """Records resource options, which `Mocks` does not see."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.run = run

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  (as gRPC calls it)
        if request.protect:
            self.run.protected.append((request.type, request.name))
        if request.replaceOnChanges:
            self.run.replace_on_changes[request.name] = list(request.replaceOnChanges)
        names = {urn.rpartition("::")[2] for urn in request.dependencies}
        self.run.dependencies.setdefault(f"{request.type} {request.name}", set()).update(names)
        if request.deleteBeforeReplace and "*" in request.replaceOnChanges:
            self.run.rerun_after_failure.add(request.name)
        if request.hooks.on_error:
            self.run.hooked.add(request.name)
        if request.retainOnDelete:
            self.run.retained.add(request.name)
        if request.ignoreChanges:
            self.run.ignored_changes[request.name] = list(request.ignoreChanges)
        return super().RegisterResource(request)


def run(cloud: Run | None = None, stack: str = TAGS["stack"], **settings: object) -> Run:
    """Runs the program with minimal settings and ``settings``; ``None`` removes a setting."""
    cloud = cloud or Run()
    values = {**SECRETS, **SETTINGS, **settings}
    pulumi.runtime.set_all_config(
        {
            f"ant-media-cluster:{key}": value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()
            if value is not None
        }
        | {"aws:defaultTags": json.dumps({"tags": {**TAGS, "stack": stack}})},
        [
            f"ant-media-cluster:{key}"
            for key in [*SECRETS, "databaseUrl", "tls", "applicationSettings", "serverSettings"]
        ],
    )
    pulumi.runtime.set_mocks(
        cloud, project="ant-media-cluster", stack=stack, preview=cloud.dry_run, monitor=Monitor(cloud)
    )

    @pulumi.runtime.test
    def program() -> None:
        runpy.run_path(str(PROGRAM))

    with (
        patch.object(pulumi.log, "error", cloud.errors.append),
        patch.object(pulumi.log, "warn", cloud.warnings.append),
        # No test asks the internet for this machine's address.
        patch("urllib.request.OpenerDirector.open", side_effect=OSError),
        patch.dict("os.environ", {"SSH_AUTH_SOCK": ""}),
        # Mocks have no server for callbacks.
        patch("pulumi.resource_hooks.register_error_hook", cloud.register_error_hook),
    ):
        program()
    return cloud


SECRET = "4dabf18193072939515e22adb298388d"  # marks a secret on Pulumi's wire


def revealed(value: dict[str, Any]) -> dict[str, Any]:
    return value["value"] if SECRET in value else value


def without_secrets(value: Any) -> Any:
    """Returns a copy of a resource's inputs without the values that Pulumi encrypts."""
    if isinstance(value, dict):
        if SECRET in value:
            return "[secret]"
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value
