"""Runs the whole program with Pulumi's mocks and records the resources that it registers."""

import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    images: bool = True
    subnets: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    resources: list[mocks.MockResourceArgs] = field(default_factory=list[mocks.MockResourceArgs])
    protected: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Types and names of the protected resources."""

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
        if args.typ == "aws:ec2/instance:Instance":
            outputs |= {"publicIp": "198.51.100.2"}
        return f"{args.name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        match args.token:
            case "aws:ec2/getAmi:getAmi" if not self.images:
                return {}, [("", "your query returned no results")]
            case "aws:ec2/getAmi:getAmi":
                return {"id": f"ami-of-{args.args['owners'][0]}"}, []
            case "aws:ec2/getInstanceType:getInstanceType":
                if args.args["instanceType"] == "c99.large":
                    return {}, [("", "no matching EC2 Instance Type found")]
                arm = args.args["instanceType"].startswith("c7g")
                return {"memorySize": 4096, "supportedArchitectures": ["arm64" if arm else "x86_64"]}, []
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                return {"names": list(self.zones)}, []
            case "aws:ec2/getSubnet:getSubnet":
                cidr, vpc = self.subnets[args.args["id"]]
                return {"id": args.args["id"], "cidrBlock": cidr, "vpcId": vpc}, []
            case "aws:route53/getZone:getZone":
                return {"zoneId": "ZONE"}, []
            case _:
                raise AssertionError(f"the program asked for {args.token}")

    def of_type(self, typ: str) -> dict[str, dict[str, Any]]:
        """Returns the inputs of all resources of a type, by resource name."""
        return {resource.name: resource.inputs for resource in self.resources if resource.typ == typ}


class Monitor(mocks.MockMonitor):
    """Records protected resources, which `Mocks` does not see."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.protected = run.protected

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  (as gRPC calls it)
        if request.protect:
            self.protected.append((request.type, request.name))
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
        [f"ant-media-cluster:{key}" for key in [*SECRETS, "databaseUrl", "tls"]],
    )
    pulumi.runtime.set_mocks(
        cloud, project="ant-media-cluster", stack=stack, preview=False, monitor=Monitor(cloud)
    )

    @pulumi.runtime.test
    def program() -> None:
        runpy.run_path(str(PROGRAM))

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
