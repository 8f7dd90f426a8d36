"""The local cloud with real machines in it, seen through boto3 and from its internet. Needs root and the sandbox's packages."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest

from sandbox import addresses, host
from sandbox.machines import control_group
from sandbox.network import package_address
from sandbox.process_tree import CLONE_NEWNET, setns

pytestmark = pytest.mark.skipif(host.complaint() is not None, reason=str(host.complaint()))

T = TypeVar("T")
CLOUD = str(host.SANDBOX / "cloud")
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

    def on_its_internet(self, function: Callable[[], T]) -> T:
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

        return self.on_its_internet(ask)


def eventually(condition: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
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
        answer = self.sandbox.on_its_internet(lambda: self.ec2.describe_instances(InstanceIds=[self.id]))
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
        self.sandbox.on_its_internet(lambda: call(GroupId=self.group, IpPermissions=[permission]))


WORLD = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
OPERATOR = {"IpRanges": [{"CidrIp": f"{addresses.OPERATOR}/32"}]}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("cloud") / "state")
    sandbox("start")
    yield sandbox
    sandbox("stop")


@pytest.fixture(scope="module")
def ec2(sandbox: Sandbox) -> Any:
    session = boto3.Session("test", "test", region_name=addresses.REGION)
    return session.client("ec2", endpoint_url=addresses.API_URL)


@pytest.fixture(scope="module")
def pair(sandbox: Sandbox, ec2: Any) -> tuple[Machine, Machine]:
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

    front, back = sandbox.on_its_internet(launch)
    for machine in (front, back):
        machine.permit(80, **WORLD)
        machine.permit(22, **OPERATOR)
    for machine in (front, back):
        eventually(machine.answers, within=30)
    return front, back


def test_user_data_has_run_and_the_machine_is_called_as_on_ec2(pair: tuple[Machine, Machine]) -> None:
    front, _ = pair
    assert front.run("cat", "/root/user-data-ran") == "ip-10-0-32-8\n"
    assert front.run("hostname", "--fqdn") == "ip-10-0-32-8.eu-west-1.compute.internal\n"
    assert front.run("cloud-init", "status") == "status: done\n"
    assert front.run("systemctl", "is-system-running", "--wait") == "running\n"


def test_a_port_is_open_to_those_whom_a_rule_names_and_to_nobody_else(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, back = pair
    assert str(sandbox.answer(front.public, 22)).startswith("SSH-2.0")
    assert sandbox.answer(front.public, 22, source=addresses.STRANGER) is None
    assert sandbox.answer(front.public, 80, source=addresses.STRANGER) == addresses.STRANGER
    assert sandbox.answer(front.public, 8080) is None

    ask = ("curl", "-s", "--http0.9", "--max-time", "1", f"http://{back.private}:8080")
    members = {"UserIdGroupPairs": [{"GroupId": front.group}]}
    back.permit(8080, **members)
    eventually(lambda: front.run("sh", "-c", f"{' '.join(ask)} || true") == front.private, 2)
    assert sandbox.answer(back.public, 8080) is None
    back.forbid(8080, **members)
    eventually(lambda: front.run("sh", "-c", f"{' '.join(ask)} || true") == "", 3)


def test_a_machine_meets_another_and_itself_at_public_addresses_with_its_own(
    pair: tuple[Machine, Machine],
) -> None:
    front, back = pair
    for there in (back, front):
        assert front.run("curl", "-s", "--http0.9", "-m2", f"http://{there.public}:80") == front.public


def test_an_elastic_address_takes_the_place_of_the_one_drawn_and_gives_it_back(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    _, back = pair
    drawn = back.public
    elastic = sandbox.on_its_internet(lambda: ec2.allocate_address(Domain="vpc"))
    allocation = elastic["AllocationId"]
    link = sandbox.on_its_internet(lambda: ec2.associate_address(AllocationId=allocation, InstanceId=back.id))
    eventually(lambda: sandbox.answer(elastic["PublicIp"], 80) == addresses.OPERATOR, within=2)
    assert sandbox.answer(drawn, 80) is None
    sandbox.on_its_internet(lambda: ec2.disassociate_address(AssociationId=link["AssociationId"]))
    eventually(back.answers, within=2)
    assert sandbox.answer(elastic["PublicIp"], 80) is None
    sandbox.on_its_internet(lambda: ec2.release_address(AllocationId=allocation))


def test_a_subnet_without_a_route_to_an_internet_gateway_is_cut_off(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    front, _ = pair
    vpc = front.api()["VpcId"]

    def route(action: str, **target: str) -> None:
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        table = tables[0]["RouteTableId"]
        getattr(ec2, action)(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)

    gateways = sandbox.on_its_internet(ec2.describe_internet_gateways)["InternetGateways"]
    gateway = next(item for item in gateways if any(link["VpcId"] == vpc for link in item["Attachments"]))
    sandbox.on_its_internet(lambda: route("delete_route"))
    eventually(lambda: not front.answers(), within=2)
    sandbox.on_its_internet(lambda: route("create_route", GatewayId=gateway["InternetGatewayId"]))
    eventually(front.answers, within=2)


def test_names_are_route_53s_and_no_others_and_the_hosts_loopback_leads_to_the_cluster(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, _ = pair

    def add_record() -> None:
        session = boto3.Session("test", "test", region_name=addresses.REGION)
        route53 = session.client("route53", endpoint_url=addresses.API_URL)
        zone = route53.list_hosted_zones_by_name(DNSName=addresses.ZONE)["HostedZones"][0]
        record = {
            "Name": addresses.ENTRANCE,
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": front.public}],
        }
        route53.change_resource_record_sets(
            HostedZoneId=zone["Id"],
            ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
        )

    sandbox.on_its_internet(add_record)
    assert front.run("getent", "hosts", addresses.ENTRANCE).split()[0] == front.public
    assert sandbox("exec", "--", "getent", "hosts", addresses.ENTRANCE).split()[0] == front.public
    assert front.run("sh", "-c", "getent hosts www.example.com || echo unknown") == "unknown\n"
    with socket.create_connection((LOOPBACK, 80), timeout=5) as side:
        assert side.recv(100).decode() == addresses.OPERATOR


def test_machines_and_operator_trust_the_certificate_authority(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    directory = f"https://{addresses.ACME_NAME}:14000/dir"
    for answer in (pair[0].run("curl", "-sS", directory), sandbox("exec", "--", "curl", "-sS", directory)):
        assert "newOrder" in json.loads(answer)


def test_packages_come_in_and_nothing_goes_out(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> None:
    front, _ = pair
    front.run("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
    assert sandbox.status()["escaped_packets"] == 0
    with pytest.raises(ConnectionRefusedError):
        sandbox.on_its_internet(lambda: socket.create_connection((package_address(0), 80), timeout=2))
    front.run("sh", "-c", "curl -s -m2 http://192.0.2.1:81/ || true")
    sandbox("exec", "--", "sh", "-c", "curl -s -m2 https://192.0.2.2/ || true")
    status = sandbox.status()
    assert status["escaped_packets"] >= 2
    assert status["escaped_destinations"] == ["192.0.2.1 tcp 81", "192.0.2.2 tcp 443"]


def test_the_operator_has_the_hosts_files_folder_and_exit_codes(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here\n")
    script = 'cat file; echo "$AWS_ACCESS_KEY_ID $AWS_REGION"; exit 7'
    command = [CLOUD, "exec", "--", "sh", "-c", script]
    done = subprocess.run(
        command,
        env=sandbox.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "here\ntest eu-west-1\n")


def test_an_instance_of_an_image_that_is_not_there_is_off_and_its_console_says_why(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    subnet = pair[0].api()["SubnetId"]

    def launch() -> str:
        answer = ec2.run_instances(ImageId="ami-0ffffffffffffffff", MinCount=1, MaxCount=1, SubnetId=subnet)
        id: str = answer["Instances"][0]["InstanceId"]
        return id

    id = sandbox.on_its_internet(launch)
    eventually(lambda: sandbox.state_of(id) == "stopped", within=3)
    assert "no machine image stands behind ami-0ffffffffffffffff" in sandbox("logs", id)
    sandbox.on_its_internet(lambda: ec2.terminate_instances(InstanceIds=[id]))
    eventually(lambda: sandbox.state_of(id) is None, within=3)


def test_a_second_start_changes_nothing(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> None:
    before = sandbox.status()
    began = time.monotonic()
    sandbox("start")
    assert time.monotonic() - began < 1
    assert sandbox.status() == before


def test_a_disk_outlives_reboot_and_stop_but_not_termination(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    _, back = pair
    back.run("sh", "-c", "echo kept > /root/disk")

    def up_since() -> str:
        return back.sandbox.attempt(
            "shell", back.id, "systemctl", "show", "--property=UserspaceTimestampMonotonic"
        )

    elastic = sandbox.on_its_internet(lambda: ec2.allocate_address(Domain="vpc"))

    def by_a_stop_and_a_start() -> None:
        sandbox.on_its_internet(
            lambda: ec2.associate_address(AllocationId=elastic["AllocationId"], InstanceId=back.id)
        )
        ec2_here("stop_instances")
        eventually(lambda: sandbox.answer(elastic["PublicIp"], 80) is None, within=15)
        ec2_here("start_instances")

    def ec2_here(action: str) -> None:
        sandbox.on_its_internet(lambda: getattr(ec2, action)(InstanceIds=[back.id]))

    for again in (
        lambda: back.sandbox.attempt("shell", back.id, "systemctl", "reboot"),
        lambda: ec2_here("reboot_instances"),
        by_a_stop_and_a_start,
    ):
        before = up_since()
        again()
        eventually(lambda before=before: up_since() not in ("", before) and back.answers(), within=30)
        assert back.run("cat", "/root/disk") == "kept\n"
    assert back.public == elastic["PublicIp"]

    sandbox.attempt("shell", back.id, "systemctl", "poweroff")
    eventually(lambda: back.api()["State"]["Name"] == "stopped", within=15)

    folder = sandbox.state / "machines" / back.id
    assert folder.exists()
    ec2_here("terminate_instances")
    eventually(lambda: not folder.exists(), within=15)
    assert [machine["name"] for machine in sandbox.status()["machines"]] == ["a-stack-front"]


def test_killed_anywhere_it_starts_afresh_and_stopped_it_leaves_nothing(sandbox: Sandbox, pair: Any) -> None:
    before = sandbox.status()
    keeper, init = map(int, (sandbox.state / "pid").read_text().split())
    for victim in (keeper, init):
        os.kill(victim, 9)
    sandbox("start")
    after = sandbox.status()
    assert after["boot_id"] != before["boot_id"]
    assert after["machines"] == []
    network = Path(f"/proc/{sandbox.init()}/ns/net").stat().st_ino
    sandbox("stop")
    assert not sandbox.state.exists()
    assert str(sandbox.state) not in Path("/proc/mounts").read_text()
    for tree in ("", "unified", "systemd"):
        assert not (Path("/sys/fs/cgroup") / tree / control_group(sandbox.state)).exists()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert (process / "ns/net").stat().st_ino != network, (process / "cmdline").read_text()
        except (FileNotFoundError, PermissionError):
            continue
