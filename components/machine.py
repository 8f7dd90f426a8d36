"""One virtual machine, made the only way this project makes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import pulumi
import pulumi_aws as aws
import pulumi_command as command
from pydantic import SecretStr

from cluster import address_plan
from cluster.host_keys import host_key, public_key
from cluster.user_data import USER, render_user_data
from components.images import Image


@dataclass(frozen=True)
class SshAccess:
    """The stack's SSH secrets: the operator's key, and the seed of every machine's host key."""

    private_key: SecretStr
    host_key_seed: SecretStr


@dataclass(frozen=True)
class MachineArgs:
    """What a machine is made of."""

    cluster: str
    """First part of the ``Name`` tag."""
    planned: address_plan.Machine
    """Its name and its private address."""
    image: Image
    instance_type: str
    volume_size: int
    """Root volume in GiB."""
    subnet_id: pulumi.Input[str]
    security_group_ids: Sequence[pulumi.Input[str]]
    access: SshAccess
    instance_profile: pulumi.Input[str] | None = None
    """The role that it acts in towards AWS."""
    protect: bool = False
    """Whether the engine refuses to delete or replace it."""


class Login(TypedDict):
    """What a connection and a jump host have in common."""

    host: pulumi.Input[str]
    user: str
    private_key: pulumi.Output[str]
    host_key: str
    dial_error_limit: int
    per_dial_timeout: int


class Machine(pulumi.ComponentResource):
    """An EC2 instance: encrypted gp3 root volume, IMDSv2 only, a private address and a host key known beforehand.

    Creates one ``aws.ec2.Instance``. Replacing it keeps its private address, so the old one goes first.
    """

    instance: aws.ec2.Instance
    """The instance; remote scripts follow its replacement and its end."""
    private_ip: str
    """Known before the machine exists."""
    public_ip: pulumi.Output[str]
    """The address that AWS gave it; known once it runs."""
    starts: list[pulumi.Output[str]]
    """Changes when the machine is another one of its name, or stops and starts to become of another type."""

    def __init__(self, name: str, args: MachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:machine:Machine", name, None, opts)
        self._access = args.access
        self._host_key = host_key(args.access.host_key_seed.get_secret_value(), args.planned.name)
        self._planned = args.planned
        self.private_ip = args.planned.address
        tags = {"Name": f"{args.cluster}-{args.planned.name}"}
        self.instance = aws.ec2.Instance(
            name,
            ami=args.image.id,
            instance_type=args.instance_type,
            subnet_id=args.subnet_id,
            private_ip=args.planned.address,
            # WebRTC media goes straight to the nodes, and without a NAT gateway packages come this way too.
            associate_public_ip_address=True,
            vpc_security_group_ids=list(args.security_group_ids),
            iam_instance_profile=args.instance_profile,
            user_data=pulumi.Output.secret(
                render_user_data(self._host_key, public_key(args.access.private_key.get_secret_value())),
            ),
            user_data_replace_on_change=True,
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required"
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True,
                volume_type="gp3",
                volume_size=args.volume_size,
                delete_on_termination=True,
                tags=tags,
            ),
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                protect=args.protect,
                # A volume keeps the tags that it was made with: of a changed default tag the provider would only
                # take the old one away (terraform-provider-aws, issue 38301).
                ignore_changes=["rootBlockDevice.tags", *([] if args.image.pinned else ["ami"])],
            ),
        )
        self.public_ip = self.instance.public_ip
        self.starts = [self.instance.id, self.instance.instance_type]
        self.register_outputs({"private_ip": self.private_ip, "public_ip": self.public_ip})

    def connection(
        self, host: pulumi.Input[str], proxy: command.remote.ProxyConnectionArgs | None = None
    ) -> command.remote.ConnectionArgs:
        """SSH to this machine at ``host``, its host key checked; through ``proxy`` where given."""
        return command.remote.ConnectionArgs(**self._login(host), proxy=proxy)

    def as_proxy(self, host: pulumi.Input[str]) -> command.remote.ProxyConnectionArgs:
        """This machine as the jump host of others, itself reached at ``host``."""
        return command.remote.ProxyConnectionArgs(**self._login(host))

    def _login(self, host: pulumi.Input[str]) -> Login:
        return {
            "host": host,
            "user": USER,
            "private_key": pulumi.Output.secret(self._access.private_key.get_secret_value()),
            "host_key": self._host_key.public_openssh,
            # A machine that boots refuses connections: 60 tries are about five minutes.
            "dial_error_limit": 60,
            "per_dial_timeout": 5,
        }

    def as_output(self) -> dict[str, pulumi.Input[str]]:
        """What the stack's outputs say of a machine."""
        return {
            "name": self._planned.name,
            "role": self._planned.role,
            "private_address": self.private_ip,
            "public_address": self.public_ip,
        }
