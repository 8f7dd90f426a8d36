"""A local cloud of a test's own with machines in it, seen through boto3 and from its internet."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3

from sandbox.cloud import addresses, host
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

T = TypeVar("T")
CLOUD = str(host.SANDBOX / "bin/cloud")
LOOPBACK = "127.77.0.77"
USER_DATA = """\
#cloud-config
write_files:
- path: /usr/local/bin/who-are-you
  content: |
    # Tells whoever connects what address they come from.
    import socketserver, sys
    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(self.client_address[0].encode())
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("", int(sys.argv[1])), Answer).serve_forever()
- path: /etc/systemd/system/who-are-you@.service
  content: |
    [Service]
    ExecStart=/usr/bin/python3 /usr/local/bin/who-are-you %i
    [Install]
    WantedBy=multi-user.target
runcmd:
- hostname > /root/user-data-ran
- systemctl enable --now who-are-you@80 who-are-you@8080
"""


class Sandbox:
    """A local cloud of the test's own, and ways to act in it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "SANDBOX_STATE": str(state), "SANDBOX_ADDRESS": LOOPBACK}

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CLOUD, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, *arguments: str) -> str:
        """The output, or nothing where it fails, as it may while a machine goes down or comes up."""
        done = self._run(*arguments)
        return done.stdout if done.returncode == 0 else ""

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("status", "--json"))
        return status

    def state_of(self, instance: str) -> str | None:
        machines = self.status()["machines"]
        return next((machine["state"] for machine in machines if machine["instance_id"] == instance), None)

    def init(self) -> int:
        return int((self.state / "pid").read_text().split()[1])

    def call_on_internet(self, function: Callable[[], T]) -> T:
        def there() -> T:
            with Path(f"/proc/{self.init()}/ns/net").open("rb") as network:
                setns(network.fileno(), CLONE_NEWNET)
            return function()

        with ThreadPoolExecutor(1) as thread:  # a thread has a network of its own
            return thread.submit(there).result()

    def answer(self, address: str, port: int, source: str = addresses.OPERATOR) -> str | None:
        """What a server there says first; None when nobody lets us through within a second."""

        def ask() -> str | None:
            try:
                with socket.create_connection((address, port), timeout=1, source_address=(source, 0)) as side:
                    return side.recv(100).decode()
            except OSError:
                return None

        return self.call_on_internet(ask)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


@dataclass
class Machine:
    sandbox: Sandbox
    ec2: Any
    id: str
    name: str
    private: str
    group: str

    def api(self) -> dict[str, Any]:
        answer = self.sandbox.call_on_internet(lambda: self.ec2.describe_instances(InstanceIds=[self.id]))
        instance: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return instance

    @property
    def public(self) -> str:
        address: str = self.api()["PublicIpAddress"]
        return address

    def run(self, *command: str) -> str:
        return self.sandbox("shell", self.name, *command)

    def answers(self, port: int = 80) -> bool:
        return self.sandbox.answer(self.public, port) is not None

    def permit(self, port: int, **peers: Any) -> None:
        self._ingress("authorize", port, peers)

    def forbid(self, port: int, **peers: Any) -> None:
        self._ingress("revoke", port, peers)

    def _ingress(self, verb: str, port: int, peers: dict[str, Any]) -> None:
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peers}
        call = getattr(self.ec2, f"{verb}_security_group_ingress")
        self.sandbox.call_on_internet(lambda: call(GroupId=self.group, IpPermissions=[permission]))


WORLD = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
OPERATOR = {"IpRanges": [{"CidrIp": f"{addresses.OPERATOR}/32"}]}


def client(service: str) -> Any:
    """Of the API; what it does is to be done on the cloud's internet."""
    session = boto3.Session("test", "test", region_name=addresses.REGION)
    return session.client(service, endpoint_url=addresses.API_URL)


def launch_pair(sandbox: Sandbox, ec2: Any) -> tuple[Machine, Machine]:
    """`front` and `back`, in one public subnet, each in a security group of its own: 80 for the world, 22 for the operator."""

    def launch() -> list[Machine]:
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.32.0/19")["Subnet"]["SubnetId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]
        ec2.create_route(
            RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
        )
        image = ec2.describe_images(Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}])["Images"][0]
        machines: list[Machine] = []
        for name, address in (("front", "10.0.32.8"), ("back", "10.0.32.9")):
            group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            interface = {
                "DeviceIndex": 0,
                "SubnetId": subnet,
                "PrivateIpAddress": address,
                "Groups": [group],
                "AssociatePublicIpAddress": True,
            }
            answer = ec2.run_instances(
                ImageId=image["ImageId"],
                MinCount=1,
                MaxCount=1,
                NetworkInterfaces=[interface],
                UserData=USER_DATA,
                TagSpecifications=[
                    {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": f"a-stack-{name}"}]}
                ],
            )
            id = answer["Instances"][0]["InstanceId"]
            machines.append(Machine(sandbox, ec2, id, name, address, group))
        return machines

    front, back = sandbox.call_on_internet(launch)
    for machine in (front, back):
        machine.permit(80, **WORLD)
        machine.permit(22, **OPERATOR)
    for machine in (front, back):
        eventually(machine.answers)
    return front, back
