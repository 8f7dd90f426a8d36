"""Port 6080 serves the metrics of all machines, if the settings have `monitoringCidrs`."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.haproxy_config import Server, render_haproxy_cfg
from tests.integration.haproxy.clients import Response, request_https
from tests.integration.haproxy.conftest import CLUSTER, EDGES, ORIGINS
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import DOMAIN, PASSWORD, USER, HAProxy
from tests.integration.haproxy.network_namespace import Network
from tests.valid_settings import MOST_EDGES, MOST_ORIGINS

# It has the address of an edge that this cluster does not have.
DATABASE = Server("database", EDGES[2].address)
MONITORED = replace(CLUSTER, monitoring=True, database=DATABASE)
LARGEST = replace(
    MONITORED,
    origins=tuple(Server(f"origin{n}", f"10.2.0.{n}") for n in range(1, MOST_ORIGINS + 1)),
    edges=tuple(Server(f"edge{n}", f"10.3.{n // 250}.{n % 250}") for n in range(1, MOST_EDGES + 1)),
)


def get(target: str, *headers: str, password: str = PASSWORD) -> Response:
    credentials = base64.b64encode(f"{USER}:{password}".encode()).decode()
    lines = (f"Authorization: Basic {credentials}", *headers)
    return request_https(6080, target, "".join(f"{line}\r\n" for line in lines))


@pytest.fixture(scope="module")
def exporters(network: Network) -> Iterator[None]:
    """Everything that serves metrics: its name is the path at which HAProxy serves them. edge2 serves none."""
    machines = {server.name: server.address for server in (*ORIGINS, EDGES[0], DATABASE)}
    with network.enter_nodes():
        running = [Node(f"node/{name}", machines[name], http=9100, rtmp=None) for name in machines]
        running += [
            Node(f"ant-media/{s.name}", s.address, http=9090, rtmp=None) for s in (*ORIGINS, EDGES[0])
        ]
    running.append(Node("node/load-balancer", "127.0.0.1", http=9100, rtmp=None))
    yield
    for exporter in running:
        exporter.stop()


@pytest.fixture(scope="module")
def haproxy(
    layers: str, certificate: Path, exporters: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HAProxy]:
    haproxy = HAProxy(layers, tmp_path_factory.mktemp("haproxy"), certificate)
    haproxy.start(render_haproxy_cfg(MONITORED))
    yield haproxy
    haproxy.stop()


@pytest.mark.parametrize(
    "name",
    [
        *(f"node/{name}" for name in ("load-balancer", "origin1", "origin2", "edge1", "database")),
        *(f"ant-media/{name}" for name in ("origin1", "origin2", "edge1")),
    ],
)
def test_metrics_of_each_machine_are_at_its_name(haproxy: HAProxy, name: str) -> None:
    received = get(f"/metrics/{name}").received
    assert (received.node, received.target, received.all("Authorization")) == (name, "/metrics", [])


def test_ant_media_server_gets_no_header_that_it_trusts(haproxy: HAProxy) -> None:
    received = get("/metrics/ant-media/edge1", "X-Forwarded-For: 127.0.0.1").received
    assert received.all("X-Forwarded-For") == []


def test_metrics_and_the_list_of_machines_require_the_password(haproxy: HAProxy) -> None:
    for target in ("/metrics/targets", "/metrics/node/origin1", "/metrics/ant-media/origin1"):
        assert request_https(6080, target).status == get(target, password="wrong").status == 401


def test_other_machines_and_paths_are_not_found(haproxy: HAProxy) -> None:
    for target in (
        "node/edge3",
        "node/",
        "ant-media/load-balancer",
        "server/origin1",
        "ant-media",
        "targets/",
    ):
        assert get(f"/metrics/{target}").status == 404, target


def test_machine_that_serves_no_metrics_returns_503(haproxy: HAProxy) -> None:
    assert get("/metrics/node/edge2").status == get("/metrics/ant-media/edge2").status == 503


def test_metrics_of_a_node_in_maintenance_are_served(haproxy: HAProxy) -> None:
    assert "not_found" not in haproxy.ask("set server origins/origin1 state maint")
    assert haproxy.server_states()["origins/origin1"] == "MAINT"
    assert get("/metrics/ant-media/origin1").status == get("/metrics/node/origin1").status == 200


def test_list_of_machines_has_their_names_by_role(haproxy: HAProxy) -> None:
    response = get("/metrics/targets")
    assert (response.status, response.header("Content-Type")) == (200, "application/json")
    assert json.loads(response.body) == [
        {"targets": names, "labels": {"cluster": DOMAIN, "role": role}}
        for role, names in (
            ("load-balancer", ["load-balancer"]),
            ("origin", ["origin1", "origin2"]),
            ("edge", ["edge1", "edge2"]),
            ("database", ["database"]),
        )
    ]


def test_list_of_the_largest_cluster_fits_a_response(haproxy: HAProxy) -> None:
    haproxy.reload(render_haproxy_cfg(LARGEST))
    groups = json.loads(get("/metrics/targets").body)
    assert sum(len(group["targets"]) for group in groups) == 1 + MOST_ORIGINS + MOST_EDGES + 1
