"""Recordings in a bucket of S3, from the setting to the bucket, also after their node and their setting are gone.

Their two updates also change what recordings do not depend on: they replace an edge, rotate the registry's password, and take an
origin away, which test_upgrade.py does not need.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client
from tests.e2e.cluster_nodes import (
    ask_valkey,
    assert_replaced,
    is_healthy,
    serves_its_cookie,
    upload_recordings,
    wait_until_no_problems,
)
from tests.e2e.node_registry import all_alive, wait_until_registered
from tests.e2e.running_cluster import Cluster, Machine, wait_until
from tests.e2e.streams import publishing, wait_for_stream

ORIGINS = ("origin1", "origin2")
REMAINING_NODES = ("origin1", "edge1", "edge2")
STREAMS = "/usr/local/antmedia/webapps/LiveApp/streams"


@pytest.fixture(scope="module")
def bucket(cluster: Cluster) -> str:
    """The name of the bucket that the stack creates: in the update of test_drift.py, if it runs before."""
    if "recordings_bucket" not in cluster.get_outputs():
        upload_recordings(cluster)
        cluster.update()
    name: str = cluster.get_outputs()["recordings_bucket"]
    return name


def list_objects(account: AwsAccount, bucket: str, prefix: str = "streams/kept") -> list[str]:
    """Returns the keys that begin with a prefix. Streams of other tests are recorded too."""
    found = account.call("s3", "list_objects_v2", Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in found]


def list_recordings(cluster: Cluster, node: str) -> list[str]:
    return cluster.run_on(node, "bash", "-c", f"cd {STREAMS} && ls *.mp4* || true").stdout.split()


@dataclass(frozen=True)
class Replacement:
    """One update replaced the origin that had a recording, which was terminated, and an edge, on request."""

    origin: str
    before: dict[str, Machine]
    after: dict[str, Machine]


@pytest.fixture(scope="module")
def replacement(cluster: Cluster, account: AwsAccount, operator_client: Client, bucket: str) -> Replacement:
    before = cluster.list_machines()
    with publishing(cluster, "kept"):
        wait_for_stream(operator_client, "kept")
        (node,) = (name for name in ORIGINS if "kept.mp4.tmp_extension" in list_recordings(cluster, name))
    wait_until(lambda: list_objects(account, bucket) == ["streams/kept.mp4"])
    # The server deletes what it has uploaded.
    wait_until(lambda: list_recordings(cluster, node) == [])
    account.call("ec2", "terminate_instances", InstanceIds=[before[node].id])
    wait_until(lambda: node not in cluster.list_machines())
    assert list_objects(account, bucket) == ["streams/kept.mp4"]
    cluster.run_on("edge1", "touch", "/root/kept").check()
    (edge,) = (
        resource["urn"]
        for resource in cluster.list_state_resources()
        if resource["urn"].endswith("aws:ec2/instance:Instance::edge1")
    )
    cluster.update("--replace", edge)
    return Replacement(node, before, cluster.list_machines())


def test_terminated_origin_and_replaced_edge_keep_their_names_and_addresses_and_rejoin(
    cluster: Cluster, operator_client: Client, replacement: Replacement
) -> None:
    assert_replaced(replacement.before, replacement.after, replacement.origin, "edge1")
    assert cluster.run_on("edge1", "test", "-e", "/root/kept").exit_code != 0  # its disk is new
    for node in (replacement.origin, "edge1"):
        # A server that starts before it is set up knows no stream of the cluster, and viewers would reach it.
        starts = ("journalctl", "--unit=antmedia", "--output=cat", "--grep=^Started")
        assert len(cluster.run_on(node, *starts).check().splitlines()) == 1
    wait_until(lambda: is_healthy(cluster, f"origins/{replacement.origin}"))
    wait_until(lambda: is_healthy(cluster, "edges/edge1"))
    wait_until(lambda: serves_its_cookie(cluster, operator_client, "edge1"))
    wait_until_registered(cluster, operator_client, all_alive(replacement.after))


def test_node_that_replaces_another_uploads_under_the_next_free_name(
    cluster: Cluster, account: AwsAccount, operator_client: Client, bucket: str, replacement: Replacement
) -> None:
    with publishing(cluster, "kept"):
        wait_for_stream(operator_client, "kept")
    wait_until(lambda: list_objects(account, bucket) == ["streams/kept.mp4", "streams/kept_1.mp4"])


# One update takes the bucket and an origin out of the stack, brings a restored registry to the nodes and rotates its password


@dataclass(frozen=True)
class Removal:
    comment: str
    """Of the preview without the bucket."""
    output: str
    """Of the update."""
    passwords: tuple[str, str]
    """Of the registry: the former and the present one."""
    valkey: tuple[str, str]
    """Its process before and after."""


@pytest.fixture(scope="module")
def removal(cluster: Cluster, replacement: Replacement, tmp_path_factory: pytest.TempPathFactory) -> Removal:
    cluster.pulumi("config", "rm", "ant-media-cluster:recordings").check()
    cluster.set_config("applicationSettings.LiveApp.s3RecordingEnabled", "false")
    cluster.set_config("origins.count", 1)
    comment = cluster.run("make", "--silent", "preview", "FORMAT=markdown").check()
    back_up_and_restore_registry(cluster, tmp_path_factory.mktemp("registry") / "registry.rdb")
    for node in REMAINING_NODES:
        cluster.run_on(node, "systemctl", "set-environment", "STAND_IN_START_SECONDS=2").check()
    old = cluster.get_config("databasePassword")
    new = f"{old}-rotated"
    cluster.pulumi("config", "set", "--secret", "ant-media-cluster:databasePassword", new).check()
    before = read_valkey_process(cluster)
    output = cluster.update()
    return Removal(comment, output, (old, new), (before, read_valkey_process(cluster)))


def read_valkey_process(cluster: Cluster) -> str:
    return cluster.run_on("database", "systemctl", "show", "valkey-server", "--property", "MainPID").check()


def back_up_and_restore_registry(cluster: Cluster, file: Path) -> None:
    ask_valkey(cluster, "HSET antmedia:users alice hash")
    cluster.run("sandbox/bin/registry", "backup", file).check()
    assert file.stat().st_mode & 0o777 == 0o600
    ask_valkey(cluster, "FLUSHALL")
    restored = cluster.run("sandbox/bin/registry", "restore", file)
    assert "Now run make up STACK=sandbox" in restored.check()
    assert ask_valkey(cluster, "HGET antmedia:users alice") == "hash\n"


def test_bucket_stays_when_the_setting_goes(account: AwsAccount, bucket: str, removal: Removal) -> None:
    assert f"the bucket {bucket} leaves the stack. It and its recordings stay in AWS" in removal.comment
    assert "recordings are no longer uploaded" in removal.comment
    assert list_objects(account, bucket) == ["streams/kept.mp4", "streams/kept_1.mp4"]
    assert account.call("iam", "list_users")["Users"] == []
    # Nothing else deletes it.
    account.call(
        "s3",
        "delete_objects",
        Bucket=bucket,
        Delete={"Objects": [{"Key": key} for key in list_objects(account, bucket, "")]},
    )
    account.call("s3", "delete_bucket", Bucket=bucket)


def test_restored_registry_and_new_password_reach_every_node_without_a_restart_of_valkey(
    cluster: Cluster, removal: Removal
) -> None:
    for node in REMAINING_NODES:
        assert f"{node}-ant-media created replacement" in removal.output
    assert removal.valkey[0] == removal.valkey[1]
    users = cluster.run_on("database", "cat", "/etc/valkey/users.acl").check()
    old, new = (hashlib.sha256(password.encode()).hexdigest() for password in removal.passwords)
    assert old not in users
    assert new in users
    wait_until(lambda: set(cluster.list_machines()) == {"load-balancer", "database", *REMAINING_NODES})
    wait_until_no_problems(cluster)
