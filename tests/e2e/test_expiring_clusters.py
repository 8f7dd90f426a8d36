"""Test clusters beside the first one: each its own, and gone when it has expired."""

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
from tests.e2e.aws_account import Thing, scan
from tests.e2e.clients import Internet, Visitor
from tests.e2e.running_cluster import DOMAIN, STATE, Cluster, Machine, eventually, running
from tests.e2e.streams import TEST_STREAM

NAME = "pr-123"
OWN_DOMAIN = f"{NAME}.{DOMAIN}"
SETTINGS = STATE / "pulumi"
EXPIRED, UNEXPIRED = "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


@dataclass(frozen=True)
class TwoClusters:
    first_before: dict[str, Machine]
    """The machines of the first, when it was alone."""
    account_before: set[Thing]
    """All that there was at AWS then."""
    address: str
    """Of the second, on this host."""


@pytest.fixture(scope="module")
def clusters(cluster: Cluster, internet: Internet) -> Iterator[TwoClusters]:
    # As small as a cluster can be.
    small = SETTINGS / "Pulumi.small.yaml"
    settings = yaml.safe_load((SETTINGS / "Pulumi.sandbox.yaml").read_text())
    settings["config"]["aws:defaultTags"]["tags"] |= {"stack": "small", "owner": "operator"}
    settings["config"] |= {"ant-media-cluster:origins": {"count": 1}, "ant-media-cluster:edges": {"count": 0}}
    small.write_text(yaml.safe_dump(settings))
    machines, account = cluster.machines(), internet.do(lambda: scan(cluster.aws))
    try:
        up = cluster.run("env", "LIKE=small", "TTL=4h", "sandbox/bin/up", stack=NAME, timeout=300)
        assert up.status == 0, up.output
        address = (STATE / "entrances" / NAME).read_text().split()[0]
        assert f"rtmp://{address}:1935/LiveApp/test" in up.stdout
        yield TwoClusters(machines, account, address)
    finally:
        small.unlink()
        # A test that failed must not leave its cluster to those that follow.
        cluster.run("make", "-s", "cluster-down", f"NAME={NAME}", timeout=60)
        for name in (NAME, "busy", "unexpired"):
            cluster.pulumi("stack", "rm", "--yes", "--force", name, stack=name)


def on_this_host(address: str) -> Visitor:
    certificates = STATE / "operator/ca-certificates.crt"
    return Visitor(lambda port: socket.create_connection((address, port), timeout=10), certificates)


def has(visitor: Visitor, domain: str, stream: str) -> bool:
    answer = visitor.get(f"https://{domain}:5443/LiveApp/streams/{stream}.m3u8")
    return answer.status == 200 and b".ts" in answer.body


def test_a_stream_on_one_cluster_is_on_that_one_only(
    cluster: Cluster, clusters: TwoClusters, this_host: Visitor
) -> None:
    # A visitor checks the certificate: each has its own, for its own name.
    second = on_this_host(clusters.address)

    def publishing(domain: str, stream: str) -> list[str]:
        return cluster.as_operator(
            "ffmpeg", "-v", "warning", *TEST_STREAM, f"rtmp://{domain}:1935/LiveApp/{stream}"
        )

    with running(publishing(DOMAIN, "of-first")), running(publishing(OWN_DOMAIN, "of-second")):
        eventually(lambda: has(this_host, DOMAIN, "of-first"), within=25)
        eventually(lambda: has(second, OWN_DOMAIN, "of-second"), within=25)
        assert not has(this_host, DOMAIN, "of-second")
        assert not has(second, OWN_DOMAIN, "of-first")


def test_its_status_and_machines_are_its_own(cluster: Cluster, clusters: TwoClusters) -> None:
    status = cluster.must("make", "-s", "status", f"STACK={NAME}")
    assert "Nothing is wrong" in status
    assert f"names        {OWN_DOMAIN}\n" in status
    for stack, origin in (
        (NAME, "ant-media-cluster-pr-123-origin1"),
        ("sandbox", "ant-media-cluster-sandbox-origin1"),
    ):
        shell = ["make", "-s", "shell", "MACHINE=origin1", f"STACK={stack}"]
        host_name = cluster.run(*shell, input="hostname\n").stdout.strip()
        (private,) = (m["private_address"] for m in cluster.status()["machines"] if m["name"] == origin)
        assert host_name == f"ip-{private.replace('.', '-')}"


def test_what_is_no_test_cluster_is_neither_made_nor_taken_down_as_one(cluster: Cluster) -> None:
    made = cluster.run("env", "LIKE=sandbox", "TTL=4h", "sandbox/bin/up", stack="sandbox")
    assert made.status != 0
    assert made.stderr.startswith("NAME is sandbox, which is a stack that does not expire")
    taken = cluster.run("make", "-s", "cluster-down", "NAME=sandbox")
    assert taken.status != 0
    assert taken.stderr.startswith("Stack sandbox carries no expiry")
    assert cluster.must("make", "-s", "cluster-down", "NAME=nobody") == (
        "There is no test cluster nobody: nothing to do.\n"
    )


def import_state(cluster: Cluster, stack: str, expiry: str) -> None:
    """A stack that an update has left as it began."""
    inputs = {
        "region": addresses.REGION,
        "accessKey": "test",
        "secretKey": "test",
        "skipCredentialsValidation": "true",
        "skipRequestingAccountId": "true",
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
    assert cluster.pulumi("stack", "init", stack, stack=stack).status == 0
    done = cluster.run("sandbox/bin/pulumi", "stack", "import", input=json.dumps(state), stack=stack)
    assert done.status == 0, done.output


def lock(stack: str, hours: int) -> Path:
    """As a job of CI leaves it that has ended, or that goes on; on a machine that nobody else sees."""
    path = SETTINGS / f".pulumi/locks/organization/ant-media-cluster/{stack}/00000000-0000.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    since = datetime.now(UTC) - timedelta(hours=hours)
    owner = {"pid": 1, "username": "runner", "hostname": "a-runner", "timestamp": since.isoformat()}
    path.write_text(json.dumps(owner))
    return path


def test_what_has_expired_goes_and_only_that(
    cluster: Cluster, clusters: TwoClusters, internet: Internet
) -> None:
    assert f"{NAME}  operator  in 3 h " in cluster.must("make", "-s", "clusters")

    # Time passes.
    state = cluster.pulumi("stack", "export", stack=NAME).stdout
    expired = re.sub(r'(\\"expiry\\":\\")[^"\\]+', rf"\g<1>{EXPIRED}", state)
    assert expired.count(EXPIRED) > 0
    done = cluster.run("sandbox/bin/pulumi", "stack", "import", input=expired, stack=NAME)
    assert done.status == 0, done.output
    lock(NAME, hours=3)
    # One that cannot be taken down, as a job is at work on it, does not keep the others.
    import_state(cluster, "busy", EXPIRED)
    import_state(cluster, "unexpired", UNEXPIRED)
    of_job = lock("busy", hours=0)

    done = cluster.run("make", "-s", "clusters-down-expired", timeout=200)
    assert done.status != 0
    assert "could not be taken down: busy." in done.stderr
    left = cluster.must("make", "-s", "clusters")
    assert [line.split()[0] for line in left.splitlines()] == ["NAME", "busy", "unexpired"]

    of_job.unlink()
    assert cluster.machines() == clusters.first_before
    assert internet.do(lambda: scan(cluster.aws)) == clusters.account_before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((clusters.address, 443), timeout=5)
