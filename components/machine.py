"""One virtual machine of the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TypedDict

import pulumi
import pulumi_aws as aws
import pulumi_command as command

from cluster.account import Image
from cluster.address_plan import MachinePlace, Role
from cluster.derived_keys import KeyPair, SshKeys, derive_key_pair
from cluster.user_data import REMOTE_USER, render_user_data

# A machine that boots refuses connections. 60 attempts, up to 5 s apart, take about five minutes.
# For a node that does not run, EC2 drops the packets. An attempt through the load balancer then takes 7 s (configure-system.sh), and all
# of them twelve minutes. `per_dial_timeout` limits only the connection to the load balancer (pulumi-command 1.2.1, connection.go).
DIAL_ATTEMPTS = 60


@dataclass(frozen=True)
class MachineArgs:
    """Arguments of a `Machine`."""

    cluster: str
    """First part of the `Name` tag."""
    place: MachinePlace
    """Name, role and private address."""
    image: Image
    instance_type: str
    volume_size: int
    """Root volume in GiB."""
    subnet_id: pulumi.Input[str]
    security_group_ids: Sequence[pulumi.Input[str]]
    ssh: SshKeys
    hooks: pulumi.ResourceHookBinding
    """Run when AWS does not create or change the instance."""
    instance_profile: pulumi.Input[str] | None
    """Name of the IAM instance profile."""
    protect: bool
    """Whether Pulumi refuses to delete or replace the instance."""
    monitored: bool
    """Whether node exporter serves its metrics."""
    public: bool
    """Whether it gets a public address."""
    replaced: bool
    """True if this update replaces the running instance by one of another image or with another kind of address."""

    @property
    def ignored_changes(self) -> list[str]:
        # Of a changed default tag, the provider would only remove the old one from the volume
        # (terraform-provider-aws, issue 38301).
        ignored = ["rootBlockDevice.tags"]
        # Of a stopped instance, the provider reads false, which would replace it
        # (terraform-provider-aws, issue 33775).
        if self.public and not self.replaced:
            ignored.append("associatePublicIpAddress")
        if not self.image.pinned and not self.replaced:
            ignored.append("ami")
        return ignored

    @cached_property
    def host_key(self) -> KeyPair:
        return derive_key_pair(self.ssh.host_key_seed.get_secret_value(), self.place.name)

    @cached_property
    def user_data(self) -> str:
        """Contains the machine's private host key."""
        runs_server = self.place.role in (Role.ORIGIN, Role.EDGE)
        return render_user_data(self.host_key, self.ssh.login_key.public_openssh, runs_server=runs_server)

    @property
    def fingerprint(self) -> str:
        """A digest of everything that replaces or restarts the instance and is known before an update."""
        image = self.image.id if self.image.pinned else ""
        facts = [image, self.instance_type, str(self.place.subnet), self.place.address, self.user_data]
        return sha256("\n".join(facts).encode()).hexdigest()[:12]


class SshLogin(TypedDict):
    """The fields that a connection and a jump host share."""

    host: pulumi.Input[str]
    user: str
    private_key: pulumi.Output[str]
    host_key: str
    dial_error_limit: int
    per_dial_timeout: int


class Machine(pulumi.ComponentResource):
    """An EC2 instance with an encrypted gp3 root volume, IMDSv2 only, a planned private address and a known SSH host key.

    Creates one `aws.ec2.Instance`. A replacement keeps the private address, so Pulumi deletes the old instance first.
    """

    name: str
    """Its name in the address plan, and as a server of HAProxy."""
    authorized_keys: Sequence[str]
    """Public keys that may log in."""
    instance: aws.ec2.Instance
    """The instance. Remote scripts are replaced and deleted with it."""
    volume_size: int
    """Planned size of the root volume in GiB."""
    private_ip: str
    """The planned private address."""
    public_ip: pulumi.Output[str]
    """The public address that AWS assigned."""
    starts: list[pulumi.Output[str]]
    """Triggers of remote scripts: they change when the instance is replaced, or restarted for another instance type."""

    def __init__(self, name: str, args: MachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:machine:Machine", name, None, opts)
        self._private_login_key = args.ssh.private_login_key
        self.authorized_keys = args.ssh.authorized_keys
        self._host_key = args.host_key
        self._role = args.place.role
        self.name = args.place.name
        self.volume_size = args.volume_size
        self.private_ip = args.place.address
        tags = {"Name": f"{args.cluster}-{args.place.name}"}
        self.instance = aws.ec2.Instance(
            name,
            ami=args.image.id,
            instance_type=args.instance_type,
            subnet_id=args.subnet_id,
            private_ip=self.private_ip,
            # WebRTC media goes straight to the nodes. Packages need it too, where there is no NAT gateway.
            associate_public_ip_address=args.public,
            vpc_security_group_ids=list(args.security_group_ids),
            iam_instance_profile=args.instance_profile,
            user_data=pulumi.Output.secret(args.user_data),
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
                hooks=args.hooks,
                ignore_changes=args.ignored_changes,
            ),
        )
        self.public_ip = self.instance.public_ip
        self.starts = [self.instance.id, self.instance.instance_type]
        self.register_outputs({"private_ip": self.private_ip, "public_ip": self.public_ip})

    def connection(
        self, host: pulumi.Input[str], proxy: command.remote.ProxyConnectionArgs | None = None
    ) -> command.remote.ConnectionArgs:
        """Returns an SSH connection to this machine at `host`, directly or through `proxy`."""
        return command.remote.ConnectionArgs(**self._login(host), proxy=proxy)

    def as_proxy(self, host: pulumi.Input[str]) -> command.remote.ProxyConnectionArgs:
        """Returns this machine, reached at `host`, as the jump host of connections to others."""
        return command.remote.ProxyConnectionArgs(**self._login(host))

    def _login(self, host: pulumi.Input[str]) -> SshLogin:
        return {
            "host": host,
            "user": REMOTE_USER,
            "private_key": pulumi.Output.secret(self._private_login_key.get_secret_value()),
            "host_key": self._host_key.public_openssh,
            "dial_error_limit": DIAL_ATTEMPTS,
            "per_dial_timeout": 5,
        }

    def as_output(self) -> dict[str, pulumi.Input[str]]:
        """Returns this machine's element of the stack output `nodes`."""
        return {
            "name": self.name,
            "role": self._role,
            "private_address": self.private_ip,
            "public_address": self.public_ip,
        }
