"""Scaling from two edges to three and back while viewers and a publisher are connected."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.clients import Client, WebSocket
from tests.e2e.cluster_nodes import BACKENDS_OF_EDGES, open_websocket_on, wait_until_up
from tests.e2e.node_registry import list_registered_nodes
from tests.e2e.preview_output import list_changed_lines, list_operations
from tests.e2e.running_cluster import DOMAIN, Cluster, Machine, wait_until
from tests.e2e.streams import get_playlist, publishing, wait_for_stream

ADDRESS = "10.0.31.252"
"""Address of the third edge: the next from the top of the first subnet."""

EDGE3 = [
    "edge3",
    "edge3",
    "edge3-ant-media",
    "edge3-drain",
    "edge3-in-service",
    "edge3-node-exporter",
    "edge3-registry-proxy",
    "edge3-scripts",
]
SERVICE = ["service-configuration", "service-endpoints", "service-removed-servers", "service-servers"]


@dataclass(frozen=True)
class Connections:
    """Connections opened before the first change."""

    websockets: list[WebSocket]
    publisher: "subprocess.Popen[str]"


@dataclass(frozen=True)
class Scaling:
    before: dict[str, Machine]
    preview: str
    output: str
    """Of the update."""
    after: dict[str, Machine]
    inputs: dict[str, Any]
    """Of each resource, before."""


@pytest.fixture(scope="module")
def connections(cluster: Cluster, operator_client: Client) -> Iterator[Connections]:
    with publishing(cluster, "survivor") as publisher:
        wait_for_stream(operator_client, "survivor")
        urls = [f"https://{DOMAIN}/LiveApp/websocket", f"https://{DOMAIN}:5443/LiveApp/websocket"]
        websockets = [operator_client.open_websocket(url) for url in urls]
        yield Connections(websockets, publisher)
        for websocket in websockets:
            websocket.close()


def read_inputs(cluster: Cluster) -> dict[str, Any]:
    """Returns the inputs of each resource in the state.

    A secret is encrypted in another way each time, and a command has another ID after each run. An input that holds the ID of an
    earlier run differs: the command that it belongs to would run again.
    """
    resources = cluster.list_state_resources()
    text = json.dumps({resource["urn"]: resource.get("inputs") for resource in resources})
    for resource in resources:
        if resource["type"] == "command:remote:Command":
            text = text.replace(f'"{resource["id"]}"', '"of the present run"')
    inputs: dict[str, Any] = json.loads(
        text, object_hook=lambda value: "secret" if "ciphertext" in value else value
    )
    return inputs


def scale_edges(cluster: Cluster, count: int) -> Scaling:
    before, inputs = cluster.list_machines(), read_inputs(cluster)
    cluster.set_config("edges.count", count)
    preview = cluster.pulumi("preview", "--diff").check()
    output = cluster.update()
    # The local cloud writes the list of machines a little later.
    wait_until(lambda: sum(name.startswith("edge") for name in cluster.list_machines()) == count)
    return Scaling(before, preview, output, cluster.list_machines(), inputs)


@pytest.fixture(scope="module")
def scaled_up(cluster: Cluster, connections: Connections) -> Scaling:
    return scale_edges(cluster, 3)


@pytest.fixture(scope="module")
def scaled_down(cluster: Cluster, operator_client: Client, scaled_up: Scaling) -> Scaling:
    """A viewer of the third edge leaves when HAProxy drains it."""
    viewer = open_websocket_on(operator_client, "edge3", scaled_up.after["edge3"].hostname)

    def is_drained() -> bool:
        assert viewer.responds_to_ping()
        return cluster.get_server_statistics()["edges/edge3"]["status"] == "DRAIN"

    def leave() -> None:
        wait_until(is_drained)
        viewer.close()

    with ThreadPoolExecutor() as pool:
        left = pool.submit(leave)
        scaling = scale_edges(cluster, 2)
        left.result()
    return scaling


def assert_server_lines(preview: str, sign: str) -> None:
    for section in ("~ stdin:", "~ haproxy_cfg"):
        lines = list_changed_lines(preview, section)
        servers = [line for line in lines if line.startswith(f"{sign} server edge3 {ADDRESS}:5080 ")]
        # In the backends origins, edges, whip and whep.
        assert ["check cookie edge3" in line for line in servers] == [False, True, False, False]
        # The sandbox has monitoringCidrs: port 6080 serves the metrics of the machines, and their list.
        others = [line for line in lines if line not in servers]
        assert all("txn.machine" in line or '"targets' in line or '"targets' in line for line in others), (
            others
        )


def test_preview_of_third_edge_shows_only_its_machine_and_server_lines(scaled_up: Scaling) -> None:
    assert_server_lines(scaled_up.preview, "+")
    assert list_operations(scaled_up.preview, "+") == EDGE3
    assert list_operations(scaled_up.preview, "-") == list_operations(scaled_up.preview, "~") == []
    # The last two check every node.
    assert list_operations(scaled_up.preview, "+-") == SERVICE


def test_third_edge_serves(cluster: Cluster, operator_client: Client, scaled_up: Scaling) -> None:
    assert scaled_up.after["edge3"].private_address == ADDRESS
    servers = {f"{backend}/edge3" for backend in BACKENDS_OF_EDGES}
    assert {server for server in cluster.get_server_statistics() if server.endswith("/edge3")} == servers
    wait_until_up(cluster, *servers)

    def edge3_plays() -> bool:
        response = operator_client.get(
            f"https://{DOMAIN}:5443/LiveApp/streams/survivor.m3u8", "Cookie: AMS_EDGE=edge3\r\n"
        )
        assert (response.status, response.node) == (200, scaled_up.after["edge3"].hostname)
        return True

    wait_until(edge3_plays)
    wait_until(lambda: list_registered_nodes(cluster, operator_client).get(ADDRESS) == "alive")
    assert ADDRESS in [node["private_address"] for node in cluster.get_outputs()["nodes"]]


def test_scaling_up_leaves_existing_machines_unchanged(scaled_up: Scaling) -> None:
    assert {name: machine for name, machine in scaled_up.after.items() if name != "edge3"} == scaled_up.before


def test_preview_of_scaling_down_shows_what_is_deleted(scaled_down: Scaling) -> None:
    assert_server_lines(scaled_down.preview, "-")
    assert list_operations(scaled_down.preview, "-") == EDGE3
    assert list_operations(scaled_down.preview, "+") == list_operations(scaled_down.preview, "~") == []
    assert list_operations(scaled_down.preview, "+-") == SERVICE


def test_third_edge_leaves_after_its_last_viewer(scaled_down: Scaling) -> None:
    output = scaled_down.output
    steps = ["edge3 is out of service; it has no connections", "HAProxy serves the new configuration"]
    assert [step for step in steps if step not in output] == [], output
    assert sorted(steps, key=output.find) == steps


def test_scaling_down_restores_the_former_cluster(
    cluster: Cluster, operator_client: Client, scaled_up: Scaling, scaled_down: Scaling
) -> None:
    assert scaled_down.after == scaled_up.before
    assert "edge3" not in cluster.get_outputs()["haproxy_cfg"]
    assert not [server for server in cluster.get_server_statistics() if server.endswith("/edge3")]
    # Nor is there anything that the next update would change: the first preview changed no other resource.
    assert read_inputs(cluster) == scaled_up.inputs


def test_open_connections_survive_both_changes(
    operator_client: Client, connections: Connections, scaled_down: Scaling
) -> None:
    for websocket in connections.websockets:
        assert websocket.responds_to_ping()
    assert connections.publisher.poll() is None  # ffmpeg exits when its connection ends
    last = get_playlist(operator_client, "survivor")
    wait_until(lambda: get_playlist(operator_client, "survivor") not in ("", last))
