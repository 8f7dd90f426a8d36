"""Test clusters: they are isolated from the first cluster, and deleted when they expire."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from sandbox.cloud import addresses
from tests.e2e.aws_account import AwsAccount, Resource
from tests.e2e.clients import Client, loopback_client
from tests.e2e.running_cluster import (
    DOMAIN,
    SETTINGS_FILE,
    SETTINGS_FOLDER,
    STATE,
    Cluster,
    Machine,
    wait_until,
)
from tests.e2e.streams import get_playlist, publishing, wait_for_stream

NAME = "pr-123"
OWN_DOMAIN = f"{NAME}.{DOMAIN}"
EXPIRED, UNEXPIRED = "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


@dataclass(frozen=True)
class TwoClusters:
    machines_before: dict[str, Machine]
    """Machines of the first cluster before the second existed."""
    resources_before: set[Resource]
    """Resources in the AWS account at that time."""
    address: str
    """Loopback address of the second cluster."""


@pytest.fixture(scope="module")
def clusters(cluster: Cluster, account: AwsAccount) -> Iterator[TwoClusters]:
    # The smallest cluster: one origin.
    small = SETTINGS_FOLDER / "Pulumi.small.yaml"
    settings = yaml.safe_load(SETTINGS_FILE.read_text())
    settings["config"]["aws:defaultTags"]["tags"] |= {"stack": "small", "owner": "operator"}
    settings["config"] |= {"ant-media-cluster:origins": {"count": 1}, "ant-media-cluster:edges": {"count": 0}}
    small.write_text(yaml.safe_dump(settings))
    machines, resources = cluster.list_machines(), account.list_resources()
    try:
        up = cluster.run("env", "LIKE=small", "TTL=4h", "sandbox/bin/up", stack=NAME)
        output = up.check()
        address = (STATE / "stack-addresses" / NAME).read_text().split()[0]
        assert f"rtmp://{address}:1935/LiveApp/test" in output
        yield TwoClusters(machines, resources, address)
    finally:
        small.unlink()
        # Also after a failed test, so that later tests find no other cluster.
        cluster.run("make", "-s", "cluster-down", f"NAME={NAME}")
        for name in (NAME, "busy", "unexpired"):
            cluster.pulumi("stack", "rm", "--yes", "--force", name, stack=name)


def test_stream_plays_only_on_the_cluster_it_was_published_to(
    cluster: Cluster, clusters: TwoClusters, host_client: Client
) -> None:
    # The clients also verify the certificate of each cluster.
    second = loopback_client(clusters.address)
    with publishing(cluster, "of-first"), publishing(cluster, "of-second", OWN_DOMAIN):
        wait_for_stream(host_client, "of-first")
        wait_for_stream(second, "of-second", domain=OWN_DOMAIN)
        assert ".ts" not in get_playlist(host_client, "of-second")
        assert ".ts" not in get_playlist(second, "of-first", OWN_DOMAIN)


def test_status_and_shell_use_the_machines_of_the_named_cluster(
    cluster: Cluster, clusters: TwoClusters
) -> None:
    def finds_no_problems() -> bool:
        status = cluster.check_output("make", "-s", "status", f"STACK={NAME}")
        assert "No problems found" in status
        assert f"names        {OWN_DOMAIN}\n" in status
        return True

    wait_until(finds_no_problems)  # HAProxy may find a server down for a moment
    for stack, origin in (
        (NAME, "ant-media-cluster-pr-123-origin1"),
        ("sandbox", "ant-media-cluster-sandbox-origin1"),
    ):
        shell = ["make", "-s", "shell", "MACHINE=origin1", f"STACK={stack}"]
        host_name = cluster.run(*shell, input="hostname\n").stdout.strip()
        (private,) = (m["private_address"] for m in cluster.get_status()["machines"] if m["name"] == origin)
        assert host_name == f"ip-{private.replace('.', '-')}"


def test_commands_for_test_clusters_refuse_a_stack_without_expiry(cluster: Cluster) -> None:
    created = cluster.run("env", "LIKE=sandbox", "TTL=4h", "sandbox/bin/up", stack="sandbox")
    assert created.exit_code != 0
    assert created.stderr.startswith("NAME is sandbox, which is not a test cluster")
    removed = cluster.run("make", "-s", "cluster-down", "NAME=sandbox")
    assert removed.exit_code != 0
    assert removed.stderr.startswith("NAME is sandbox, which is not a test cluster")
    assert cluster.check_output("make", "-s", "cluster-down", "NAME=nobody") == (
        "There is no test cluster nobody: nothing to do.\n"
    )


def import_state(cluster: Cluster, stack: str, expiry: str) -> None:
    """Imports the state that an update leaves when it stops at its start."""
    inputs = {
        "region": addresses.REGION,
        "accessKey": "test",
        "secretKey": "test",
        "skipCredentialsValidation": "true",
        "defaultTags": json.dumps({"tags": {"owner": "operator", "expiry": expiry}}),
    }
    provider: dict[str, object] = {
        "urn": f"urn:pulumi:{stack}::ant-media-cluster::pulumi:providers:aws::default_7_51_1",
        "type": "pulumi:providers:aws",
        "custom": True,
        "id": "1b0b4c5e-0000-4000-8000-000000000000",
        "inputs": inputs,
    }
    state = {"version": 3, "deployment": {"manifest": {}, "resources": [provider]}}
    cluster.pulumi("stack", "init", stack, stack=stack).check()
    cluster.pulumi("stack", "import", input=json.dumps(state), stack=stack).check()


def write_lock(stack: str, hours: int) -> Path:
    """Writes the lock of a CI job on another machine."""
    path = SETTINGS_FOLDER / f".pulumi/locks/organization/ant-media-cluster/{stack}/00000000-0000.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    since = datetime.now(UTC) - timedelta(hours=hours)
    owner = {"pid": 1, "username": "runner", "hostname": "a-runner", "timestamp": since.isoformat()}
    path.write_text(json.dumps(owner))
    return path


def refuses_connections(address: str) -> bool:
    try:
        socket.create_connection((address, 443), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def test_only_expired_clusters_are_deleted(
    cluster: Cluster, clusters: TwoClusters, account: AwsAccount
) -> None:
    assert f"{NAME}  operator  in 3 h " in cluster.check_output("make", "-s", "clusters")

    # Set the expiry in the past.
    state = cluster.pulumi("stack", "export", stack=NAME).stdout
    expired = re.sub(r'(\\"expiry\\":\\")[^"\\]+', rf"\g<1>{EXPIRED}", state)
    assert expired.count(EXPIRED) > 0
    cluster.pulumi("stack", "import", input=expired, stack=NAME).check()
    write_lock(NAME, hours=3)
    # A cluster that a CI job has locked does not stop the deletion of the others.
    import_state(cluster, "busy", EXPIRED)
    import_state(cluster, "unexpired", UNEXPIRED)
    job_lock = write_lock("busy", hours=0)

    deletion = cluster.run("make", "-s", "clusters-down-expired")
    assert deletion.exit_code != 0
    assert "could not be deleted: busy." in deletion.stderr
    left = cluster.check_output("make", "-s", "clusters")
    assert [line.split()[0] for line in left.splitlines()] == ["NAME", "busy", "unexpired"]

    job_lock.unlink()
    wait_until(lambda: cluster.list_machines() == clusters.machines_before)
    assert account.list_resources() == clusters.resources_before
    # The local cloud's relay looks for changes twice a second.
    wait_until(lambda: refuses_connections(clusters.address))
