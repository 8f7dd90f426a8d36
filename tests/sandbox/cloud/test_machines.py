"""Machines and networks of a running local cloud. Needs root and the sandbox's packages."""

import json
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from sandbox.cloud import addresses
from sandbox.cloud.machines import control_group
from sandbox.cloud.network import package_address
from tests.sandbox.cloud.local_cloud import CLOUD, LOOPBACK, Machine, Sandbox, wait_until


def test_user_data_has_run_and_hostname_is_as_on_ec2(pair: tuple[Machine, Machine]) -> None:
    front, _ = pair
    assert front.run("cat", "/root/user-data-ran") == "ip-10-0-32-8\n"
    assert front.run("hostname", "--fqdn") == "ip-10-0-32-8.eu-west-1.compute.internal\n"
    # It starts the service that `pair` waits for before it is done.
    wait_until(lambda: front.try_run("cloud-init", "status") == "status: done\n")
    assert front.run("systemctl", "is-system-running", "--wait") == "running\n"


def test_port_is_open_only_to_the_peers_of_its_rules(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> None:
    front, back = pair
    assert str(sandbox.read_greeting(front.public, 22)).startswith("SSH-2.0")
    assert sandbox.read_greeting(front.public, 22, source=addresses.STRANGER) is None
    assert sandbox.read_greeting(front.public, 80, source=addresses.STRANGER) == addresses.STRANGER
    assert sandbox.read_greeting(front.public, 8080) is None

    request = ("curl", "-s", "--http0.9", "--max-time", "1", f"http://{back.private}:8080")
    members = {"UserIdGroupPairs": [{"GroupId": front.group}]}
    back.authorize_ingress(8080, **members)
    wait_until(lambda: front.run("sh", "-c", f"{' '.join(request)} || true") == front.private)
    assert sandbox.read_greeting(back.public, 8080) is None
    back.revoke_ingress(8080, **members)
    wait_until(lambda: front.run("sh", "-c", f"{' '.join(request)} || true") == "")


def test_machine_reaches_others_and_itself_at_public_addresses(
    pair: tuple[Machine, Machine],
) -> None:
    front, back = pair
    for target in (back, front):
        assert front.run("curl", "-s", "--http0.9", "-m60", f"http://{target.public}:80") == front.public


def test_elastic_ip_replaces_the_public_address_until_released(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    _, back = pair
    assigned = back.public
    elastic = sandbox.call_on_internet(lambda: ec2.allocate_address(Domain="vpc"))
    allocation = elastic["AllocationId"]
    link = sandbox.call_on_internet(
        lambda: ec2.associate_address(AllocationId=allocation, InstanceId=back.id)
    )
    wait_until(lambda: sandbox.read_greeting(elastic["PublicIp"], 80) == addresses.OPERATOR)
    assert sandbox.read_greeting(assigned, 80) is None
    sandbox.call_on_internet(lambda: ec2.disassociate_address(AssociationId=link["AssociationId"]))
    wait_until(back.answers)
    assert sandbox.read_greeting(elastic["PublicIp"], 80) is None
    sandbox.call_on_internet(lambda: ec2.release_address(AllocationId=allocation))


def test_restarted_machine_answers_at_its_new_public_address(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    _, back = pair
    before = back.public
    sandbox.call_on_internet(lambda: ec2.stop_instances(InstanceIds=[back.id]))
    wait_until(lambda: sandbox.state_of(back.id) == "stopped")
    stopped = sandbox.find_machine(back.id)
    assert stopped
    assert stopped["public_address"] is None
    sandbox.call_on_internet(lambda: ec2.start_instances(InstanceIds=[back.id]))
    wait_until(back.answers)
    assert back.public != before
    assert sandbox.read_greeting(before, 80) is None


def test_checkip_answers_the_address_of_the_client(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> None:
    front, _ = pair
    url = f"https://{addresses.CHECKIP_NAME}/"
    assert sandbox("exec", "--", "curl", "-sS", url) == f"{addresses.OPERATOR}\n"
    assert front.run("curl", "-sS", url) == f"{front.public}\n"


def test_subnet_without_internet_gateway_route_is_isolated(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    front, _ = pair
    vpc = front.describe()["VpcId"]

    def route(action: str, **target: str) -> None:
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        table = tables[0]["RouteTableId"]
        getattr(ec2, action)(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)

    gateways = sandbox.call_on_internet(ec2.describe_internet_gateways)["InternetGateways"]
    gateway = next(item for item in gateways if any(link["VpcId"] == vpc for link in item["Attachments"]))
    sandbox.call_on_internet(lambda: route("delete_route"))
    wait_until(lambda: not front.answers())
    sandbox.call_on_internet(lambda: route("create_route", GatewayId=gateway["InternetGatewayId"]))
    wait_until(front.answers)


def test_route_53_names_resolve_and_loopback_forwards_to_the_cluster(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, _ = pair

    def add_record() -> None:
        session = boto3.Session("test", "test", region_name=addresses.REGION)
        route53 = session.client("route53", endpoint_url=addresses.API_URL)
        zone = route53.list_hosted_zones_by_name(DNSName=addresses.ZONE)["HostedZones"][0]
        record = {
            "Name": addresses.DOMAIN,
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": front.public}],
        }
        route53.change_resource_record_sets(
            HostedZoneId=zone["Id"],
            ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
        )

    sandbox.call_on_internet(add_record)
    assert front.run("getent", "hosts", addresses.DOMAIN).split()[0] == front.public
    assert sandbox("exec", "--", "getent", "hosts", addresses.DOMAIN).split()[0] == front.public
    assert front.run("sh", "-c", "getent hosts www.example.com || echo unknown") == "unknown\n"
    with socket.create_connection((LOOPBACK, 80), timeout=60) as side:
        assert side.recv(100).decode() == addresses.OPERATOR


def test_operator_trusts_all_servers_and_machines_only_aws(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, _ = pair
    directory = f"https://{addresses.ACME_NAME}:14000/dir"
    zones = f"https://{addresses.ROUTE53_NAME}/2013-04-01/hostedzone"
    assert "newOrder" in json.loads(sandbox("exec", "--", "curl", "-sS", directory))
    assert "ErrorResponse" in sandbox("exec", "--", "curl", "-sS", zones)
    assert "ErrorResponse" in front.run("curl", "-sS", zones)
    assert front.run("sh", "-c", f"curl -s {directory} || echo $?") == "60\n"  # certificate not trusted


def test_machines_install_packages_and_all_other_egress_is_rejected(
    sandbox: Sandbox, pair: tuple[Machine, Machine]
) -> None:
    front, back = pair
    before = sandbox.status()
    # As on EC2, a machine has no package lists before.
    assert "Packages" not in back.run("ls", "/var/lib/apt/lists")
    front.run("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
    assert sandbox.status()["escaped_packets"] == before["escaped_packets"]
    with pytest.raises(ConnectionRefusedError):
        sandbox.call_on_internet(lambda: socket.create_connection((package_address(0), 80), timeout=60))
    front.run("sh", "-c", "curl -s -m60 http://192.0.2.1:81/ || true")
    sandbox("exec", "--", "sh", "-c", "curl -s -m60 https://192.0.2.2/ || true")
    after = sandbox.status()
    assert after["escaped_packets"] >= before["escaped_packets"] + 2
    escaped = set(after["escaped_destinations"]) - set(before["escaped_destinations"])
    assert escaped == {"192.0.2.1 tcp 81", "192.0.2.2 tcp 443"}


def test_exec_keeps_files_working_directory_and_exit_code(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here\n")
    script = 'cat file; echo "$AWS_ACCESS_KEY_ID $AWS_REGION"; exit 7'
    command = [CLOUD, "exec", "--", "sh", "-c", script]
    done = subprocess.run(
        command,
        env=sandbox.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "here\ntest eu-west-1\n")


def test_instance_of_missing_image_is_stopped_with_the_reason_on_its_console(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    subnet = pair[0].describe()["SubnetId"]

    def launch() -> str:
        image = ec2.register_image(Name="not-built", RootDeviceName="/dev/xvda")["ImageId"]
        answer = ec2.run_instances(
            ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnet
        )
        id: str = answer["Instances"][0]["InstanceId"]
        return id

    id = sandbox.call_on_internet(launch)
    wait_until(lambda: sandbox.state_of(id) == "stopped")
    assert "no machine image exists for ami-" in sandbox("logs", id)
    sandbox.call_on_internet(lambda: ec2.terminate_instances(InstanceIds=[id]))
    wait_until(lambda: sandbox.state_of(id) is None)


def test_second_start_changes_nothing(sandbox: Sandbox, pair: tuple[Machine, Machine]) -> None:
    before = sandbox.status()
    sandbox("start")
    assert sandbox.status() == before


def test_reboot_from_inside_ends_commands_and_keeps_the_disk(pair: tuple[Machine, Machine]) -> None:
    _, back = pair
    back.run("sh", "-c", "echo data > /root/disk")
    with subprocess.Popen([CLOUD, "shell", back.id, "sleep", "100"], env=back.sandbox.environment) as command:
        wait_until(lambda: back.try_run("pgrep", "-x", "sleep") != "")
        back.try_run("systemctl", "reboot")
        try:
            assert command.wait(timeout=300) != 0
        finally:
            command.kill()
    wait_until(back.answers)
    assert back.run("cat", "/root/disk") == "data\n"


def test_disk_survives_reboot_and_stop_but_not_termination(
    sandbox: Sandbox, ec2: Any, pair: tuple[Machine, Machine]
) -> None:
    _, back = pair
    back.run("sh", "-c", "echo more > /root/disk")

    def boot_time() -> str:
        return back.try_run("systemctl", "show", "--property=UserspaceTimestampMonotonic")

    elastic = sandbox.call_on_internet(lambda: ec2.allocate_address(Domain="vpc"))

    def stop_and_start() -> None:
        sandbox.call_on_internet(
            lambda: ec2.associate_address(AllocationId=elastic["AllocationId"], InstanceId=back.id)
        )
        call_ec2("stop_instances")
        wait_until(lambda: sandbox.read_greeting(elastic["PublicIp"], 80) is None)
        call_ec2("start_instances")

    def call_ec2(action: str) -> None:
        sandbox.call_on_internet(lambda: getattr(ec2, action)(InstanceIds=[back.id]))

    for restart in (lambda: call_ec2("reboot_instances"), stop_and_start):
        before = boot_time()
        restart()
        wait_until(lambda before=before: boot_time() not in ("", before) and back.answers())
        assert back.run("cat", "/root/disk") == "more\n"
    assert back.public == elastic["PublicIp"]

    back.try_run("systemctl", "poweroff")
    wait_until(lambda: back.describe()["State"]["Name"] == "stopped")

    folder = sandbox.state / "machines" / back.id
    assert folder.exists()
    call_ec2("terminate_instances")
    wait_until(lambda: not folder.exists())
    assert [machine["name"] for machine in sandbox.status()["machines"]] == ["a-stack-front"]


def test_killed_cloud_starts_again_and_stopped_cloud_leaves_nothing(sandbox: Sandbox, pair: Any) -> None:
    before = sandbox.status()
    keeper, init = map(int, (sandbox.state / "pid").read_text().split())
    os.kill(keeper, 9)
    with suppress(ProcessLookupError):  # it ends with the keeper
        os.kill(init, 9)
    sandbox("start")
    after = sandbox.status()
    assert after["boot_id"] != before["boot_id"]
    assert after["machines"] == []
    # The open file keeps another namespace from getting the same number meanwhile.
    with Path(f"/proc/{sandbox.init_pid()}/ns/net").open("rb") as opened:
        network = os.fstat(opened.fileno()).st_ino
        sandbox("stop")
        assert_nothing_left(sandbox, network)


def assert_nothing_left(sandbox: Sandbox, network: int) -> None:
    assert not sandbox.state.exists()
    assert str(sandbox.state) not in Path("/proc/mounts").read_text()
    for tree in ("", "unified", "systemd"):
        assert not (Path("/sys/fs/cgroup") / tree / control_group(sandbox.state)).exists()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert (process / "ns/net").stat().st_ino != network, (process / "cmdline").read_text()
        except (FileNotFoundError, PermissionError):
            continue
