"""Recordings in a bucket of S3, from the setting to the bucket, also after their node and their setting are gone."""

from collections.abc import Iterator

import pytest

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client
from tests.e2e.running_cluster import STACK, Cluster, restored_settings, wait_until
from tests.e2e.streams import publishing, wait_for_stream

ORIGINS = ("origin1", "origin2")
STREAMS = "/usr/local/antmedia/webapps/LiveApp/streams"


@pytest.fixture(scope="module")
def bucket(cluster: Cluster) -> Iterator[str]:
    """The name of the bucket that the stack creates."""
    with restored_settings():
        cluster.set_config("recordings.bucket", "create")
        cluster.set_config("applicationSettings.LiveApp.mp4MuxingEnabled", "true")
        cluster.set_config("drainSeconds", 2)
        cluster.update()
        yield cluster.get_outputs()["recordings_bucket"]


def list_objects(account: AwsAccount, bucket: str) -> list[str]:
    found = account.call("s3", "list_objects_v2", Bucket=bucket).get("Contents", [])
    return [item["Key"] for item in found]


def list_recordings(cluster: Cluster, node: str) -> list[str]:
    return cluster.run_on(node, "bash", "-c", f"cd {STREAMS} && ls *.mp4* || true").stdout.split()


def test_preview_shows_the_bucket_and_refuses_a_wrong_one(cluster: Cluster) -> None:
    preview = ("make", "--silent", "preview", "FORMAT=markdown")
    with restored_settings():
        cluster.set_config("recordings.bucket", "Our.Recordings")
        assert (
            'recordings.bucket is "Our.Recordings": give create, or the name of'
            in cluster.run(*preview).stdout
        )
        cluster.set_config("recordings.bucket", "create")
        comment = cluster.run(*preview).check()
    for created in (
        "`recordings-bucket`",
        "`recordings-bucket-access`",
        "`recordings-key`",
        "`recordings-user`",
    ):
        assert created in comment
    assert f"{STACK}-recordings-" in comment
    assert "s3RecordingEnabled" in comment
    assert "none violated" in comment


def test_recording_is_in_the_bucket_after_its_node_is_gone(
    cluster: Cluster, account: AwsAccount, operator_client: Client, bucket: str
) -> None:
    with publishing(cluster, "kept"):
        wait_for_stream(operator_client, "kept")
        (node,) = (name for name in ORIGINS if "kept.mp4.tmp_extension" in list_recordings(cluster, name))
    wait_until(lambda: list_objects(account, bucket) == ["streams/kept.mp4"])
    # The server deletes what it has uploaded.
    wait_until(lambda: list_recordings(cluster, node) == [])
    account.call("ec2", "terminate_instances", InstanceIds=[cluster.list_machines()[node].id])
    wait_until(lambda: node not in cluster.list_machines())
    assert list_objects(account, bucket) == ["streams/kept.mp4"]
    # The node that replaces it uploads too, under the next free name.
    cluster.refresh()
    cluster.update()
    with publishing(cluster, "kept"):
        wait_for_stream(operator_client, "kept")
    wait_until(lambda: list_objects(account, bucket) == ["streams/kept.mp4", "streams/kept_1.mp4"])


def test_bucket_stays_when_the_setting_goes(cluster: Cluster, account: AwsAccount, bucket: str) -> None:
    with restored_settings():
        cluster.pulumi("config", "rm", "ant-media-cluster:recordings").check()
        cluster.set_config("applicationSettings.LiveApp.s3RecordingEnabled", "false")
        comment = cluster.run("make", "--silent", "preview", "FORMAT=markdown").check()
        assert f"the bucket {bucket} leaves the stack. It and its recordings stay in AWS" in comment
        assert "recordings are no longer uploaded" in comment
        cluster.update()
    assert list_objects(account, bucket) == ["streams/kept.mp4", "streams/kept_1.mp4"]
    assert account.call("iam", "list_users")["Users"] == []
    # Nothing else deletes it.
    account.call(
        "s3",
        "delete_objects",
        Bucket=bucket,
        Delete={"Objects": [{"Key": key} for key in list_objects(account, bucket)]},
    )
    account.call("s3", "delete_bucket", Bucket=bucket)
