"""A local cloud with machines for tests, driven through its command line and boto3."""

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
from tests.e2e.running_cluster import ENTER_MACHINE

T = TypeVar("T")
CLOUD = str(host.SANDBOX / "bin/cloud")
LOOPBACK = os.environ.get("SANDBOX_TEST_ADDRESS", "127.77.0.77")
"""Set the variable to run the tests twice at the same time."""
USER_DATA = """\
#cloud-config
write_files:
- path: /usr/local/bin/client-address
  content: |
    # Answers every connection with the client's address.
    import socketserver, sys
    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(self.client_address[0].encode())
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("", int(sys.argv[1])), Answer).serve_forever()
- path: /etc/systemd/system/client-address@.service
  content: |
    [Service]
    ExecStart=/usr/bin/python3 /usr/local/bin/client-address %i
    [Install]
    WantedBy=multi-user.target
runcmd:
- hostname > /root/user-data-ran
- systemctl enable --now client-address@80 client-address@8080
"""


class Sandbox:
    """A local cloud with its own state folder and loopback address."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {**os.environ, "SANDBOX_STATE": str(state), "SANDBOX_ADDRESS": LOOPBACK}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(CLOUD, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("status", "--json"))
        return status

    def find_machine(self, instance: str) -> dict[str, Any] | None:
        """Returns the entry of an instance in the cloud's status file."""
        machines: list[dict[str, Any]] = json.loads((self.state / "status.json").read_text())
        return next((machine for machine in machines if machine["instance_id"] == instance), None)

    def state_of(self, instance: str) -> str | None:
        found = self.find_machine(instance)
        return found["state"] if found else None

    def init_pid(self) -> int:
        return int((self.state / "pid").read_text().split()[1])

    def call_on_internet(self, function: Callable[[], T]) -> T:
        """Calls a function in the internet namespace."""

        def call() -> T:
            with Path(f"/proc/{self.init_pid()}/ns/net").open("rb") as network:
                setns(network.fileno(), CLONE_NEWNET)
            return function()

        with ThreadPoolExecutor(1) as thread:  # setns changes the calling thread only
            return thread.submit(call).result()

    def read_greeting(self, address: str, port: int, source: str = addresses.OPERATOR) -> str | None:
        """Returns the first data that a server sends, or None if there is no connection within three seconds."""

        def connect() -> str | None:
            try:
                with socket.create_connection((address, port), timeout=3, source_address=(source, 0)) as side:
                    # The kernel has accepted the connection. The server may be busy.
                    side.settimeout(30)
                    return side.recv(100).decode()
            except OSError:
                return None

        return self.call_on_internet(connect)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while True:
        asked = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, "the condition is not met after 300 seconds"
        # A condition that takes long is asked less often.
        time.sleep(max(0.1, 2 * (time.monotonic() - asked)))


@dataclass
class Machine:
    sandbox: Sandbox
    ec2: Any
    id: str
    name: str
    private: str
    group: str

    def describe(self) -> dict[str, Any]:
        answer = self.sandbox.call_on_internet(lambda: self.ec2.describe_instances(InstanceIds=[self.id]))
        instance: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return instance

    @property
    def public(self) -> str:
        address: str = self.describe()["PublicIpAddress"]
        return address

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as root. As `sandbox/bin/cloud shell` does, but without the start of Python."""
        process = (self.sandbox.find_machine(self.id) or {}).get("process") or 0
        enter = ("nsenter", f"--target={self.sandbox.init_pid()}", "--all", "sh", "-c", ENTER_MACHINE)
        return self.sandbox.run(*enter, str(process), *command)

    def run(self, *command: str) -> str:
        done = self._run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_run(self, *command: str) -> str:
        """Returns the output, or "" if the command fails, as it may while the machine restarts."""
        done = self._run(*command)
        return done.stdout if done.returncode == 0 else ""

    def answers(self, port: int = 80) -> bool:
        return self.sandbox.read_greeting(self.public, port) is not None

    def authorize_ingress(self, port: int, **peers: Any) -> None:
        self._change_ingress("authorize", port, peers)

    def revoke_ingress(self, port: int, **peers: Any) -> None:
        self._change_ingress("revoke", port, peers)

    def _change_ingress(self, verb: str, port: int, peers: dict[str, Any]) -> None:
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peers}
        call = getattr(self.ec2, f"{verb}_security_group_ingress")
        self.sandbox.call_on_internet(lambda: call(GroupId=self.group, IpPermissions=[permission]))


WORLD = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
OPERATOR = {"IpRanges": [{"CidrIp": f"{addresses.OPERATOR}/32"}]}


def client(service: str) -> Any:
    """Returns a client of the AWS API; call it through `Sandbox.call_on_internet`."""
    session = boto3.Session("test", "test", region_name=addresses.REGION)
    return session.client(service, endpoint_url=addresses.API_URL)


def launch_pair(sandbox: Sandbox, ec2: Any) -> tuple[Machine, Machine]:
    """Launches `front` and `back` in one public subnet, each with its own security group.

    Port 80 is open to all, port 22 to the operator.
    """

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
                InstanceType="t3.micro",
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
        machine.authorize_ingress(80, **WORLD)
        machine.authorize_ingress(22, **OPERATOR)
    for machine in (front, back):
        wait_until(machine.answers)
    return front, back
