"""Upgrades of Ant Media Server in place, under load.

The nodes get another zip, then one that does not start, then the former one again.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.cloud import addresses
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, SandboxInternet
from tests.e2e.cluster_nodes import BACKENDS_OF_EDGES, wait_until_up
from tests.e2e.node_registry import hash_panel_password
from tests.e2e.running_cluster import (
    DOMAIN,
    Cluster,
    CommandResult,
    recording,
    running_process,
    wait_until,
)
from tests.sandbox.images.ant_media_archive import write_stand_in_archive

GOOD, BROKEN = "3.1.0", "3.2.0"
EDGES, ORIGINS = ("edge1", "edge2"), ("origin1",)
PORT = 8000
APP = "/usr/local/antmedia/webapps/LiveApp"
PRINT_VERSION = """
session=$(mktemp)
curl --silent --cookie-jar $session --json @- http://127.0.0.1:5080/rest/v2/users/authenticate >/dev/null
curl --silent --cookie $session http://127.0.0.1:5080/rest/v2/version
"""


@dataclass(frozen=True)
class Zips:
    """Zips of the stand-in on a web server of the sandbox's internet."""

    folder: Path
    checksums: Mapping[str, str]

    def set(self, cluster: Cluster, version: str) -> CommandResult:
        """Sets amsZip and runs `pulumi up`."""
        cluster.set_config("amsZip.url", f"http://{addresses.OPERATOR}:{PORT}/{version}.zip")
        cluster.set_config("amsZip.sha256", self.checksums[version])
        return cluster.pulumi("up", "--yes", "--skip-preview")


def list_versions(cluster: Cluster) -> dict[str, str]:
    user = json.dumps({"email": f"admin@{DOMAIN}", "password": hash_panel_password(cluster)})
    return {
        node: json.loads(cluster.run_on(node, "bash", "-c", PRINT_VERSION, input=user).check())["versionName"]
        for node in (*EDGES, *ORIGINS)
    }


def read_start(cluster: Cluster, node: str) -> int:
    """Returns when a node's server was started. The machines have the same clock."""
    show = ("systemctl", "show", "antmedia", "--property", "ExecMainStartTimestampMonotonic", "--value")
    return int(cluster.run_on(node, *show).check())


@pytest.fixture(scope="module")
def zips(
    cluster: Cluster, internet: SandboxInternet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Zips]:
    folder = tmp_path_factory.mktemp("zips")
    checksums = {
        version: hashlib.sha256(
            write_stand_in_archive(folder / f"{version}.zip", version, starts=version != BROKEN).read_bytes()
        ).hexdigest()
        for version in (GOOD, BROKEN)
    }
    server = [sys.executable, "-m", "http.server", str(PORT), "--bind", addresses.OPERATOR, "--directory"]
    with running_process(cluster.operator_command(*server, folder)):
        wait_until(lambda: internet.connect(addresses.OPERATOR, PORT, addresses.STRANGER).close() or True)
        yield Zips(folder, checksums)


@pytest.fixture(scope="module")
def upgraded(cluster: Cluster, zips: Zips) -> dict[str, object]:
    """Upgrades all nodes under load and returns the report of the load."""
    for node in (*EDGES, *ORIGINS):
        keep = (
            f"echo key=users >>{APP}/WEB-INF/red5-web.properties && install -D /dev/stdin {APP}/streams/a.mp4"
        )
        cluster.run_on(node, "bash", "-c", keep, input="a recording").check()
    load = (sys.executable, "-m", "tests.e2e.load_generator", DOMAIN, "0", "50")
    with recording(cluster.operator_command(*load)) as stop:
        zips.set(cluster, GOOD).check()
        report: dict[str, object] = stop()
    return report


def test_no_request_fails_while_the_nodes_are_upgraded(upgraded: dict[str, object]) -> None:
    assert upgraded["failed"] == {}


def test_edges_are_upgraded_one_after_another_and_before_the_origins(
    cluster: Cluster, upgraded: dict[str, object]
) -> None:
    assert list_versions(cluster) == dict.fromkeys((*EDGES, *ORIGINS), GOOD)
    starts = {node: read_start(cluster, node) for node in (*EDGES, *ORIGINS)}
    assert sorted(starts, key=lambda node: starts[node]) == [*EDGES, *ORIGINS]


def test_upgraded_nodes_keep_settings_and_recordings(
    cluster: Cluster, operator_client: Client, upgraded: dict[str, object]
) -> None:
    script = f"tail -n 1 {APP}/WEB-INF/red5-web.properties && cat {APP}/streams/a.mp4 && echo && ls -d /usr/local/antmedia*"
    for node in (*EDGES, *ORIGINS):
        kept = cluster.run_on(node, "bash", "-c", script).check()
        assert kept.splitlines() == ["key=users", "a recording", "/usr/local/antmedia"]


@pytest.fixture(scope="module")
def failed(cluster: Cluster, zips: Zips, upgraded: dict[str, object]) -> CommandResult:
    return zips.set(cluster, BROKEN)


def test_server_that_does_not_start_ends_the_upgrade_at_the_first_node(
    cluster: Cluster, operator_client: Client, failed: CommandResult
) -> None:
    assert failed.exit_code != 0
    assert "Ant Media Server does not start: it ended 5 times. Its log says:" in failed.output
    assert "Caused by: this version is broken" in failed.output
    statistics = cluster.get_server_statistics()
    assert not any(
        statistics[f"{backend}/edge1"]["status"].startswith("UP") for backend in ("edges", "origins")
    )
    wait_until_up(cluster, "edges/edge2", "origins/origin1")
    assert operator_client.get(f"https://{DOMAIN}:5443/LiveApp/").status == 200


# One update brings the former zip back. Before it, the registry and its standby are lost.


@pytest.fixture(scope="module")
def recovered(
    cluster: Cluster, account: AwsAccount, zips: Zips, failed: CommandResult, upgraded: dict[str, object]
) -> str:
    """The output of the update. The zip cannot be downloaded, and database and standby are gone."""
    (zips.folder / f"{GOOD}.zip").unlink()
    account.call("ec2", "terminate_instances", InstanceIds=[cluster.list_machines()["database"].id])
    lose = "systemctl stop keep-registry valkey-server && rm -r /var/lib/valkey/* && systemctl start valkey-server keep-registry"
    cluster.run_on("load-balancer", "bash", "-c", lose).check()
    return zips.set(cluster, GOOD).check()


def test_former_zip_brings_the_failed_node_back_without_a_download(cluster: Cluster, recovered: str) -> None:
    assert list_versions(cluster) == dict.fromkeys((*EDGES, *ORIGINS), GOOD)
    wait_until_up(cluster, *(f"{backend}/{edge}" for backend in BACKENDS_OF_EDGES for edge in EDGES))
    assert cluster.run_on("edge1", "cat", f"{APP}/streams/a.mp4").check() == "a recording"


def test_recreated_database_has_its_administrator_before_a_stranger_can_register(
    operator_client: Client, recovered: str
) -> None:
    assert "edge2-ant-media created replacement" in recovered
    stranger = {"email": "stranger@example.org", "password": "0" * 32, "scope": "system", "userType": "ADMIN"}
    response = operator_client.post_json(f"https://{DOMAIN}:4444/rest/v2/users/initial", stranger)
    assert json.loads(response.body)["success"] is False
