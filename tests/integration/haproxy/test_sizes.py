"""HAProxy 3.0 accepts the rendered file without warnings for every size of cluster."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.haproxy_config import Server, render_haproxy_cfg
from tests.integration.haproxy.clients import connect_tls, open_rtmp, read_response, request_https
from tests.integration.haproxy.conftest import CLUSTER
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import DOMAIN, HAProxy


@pytest.fixture
def only_origin(layers: str, certificate: Path, nodes: dict[str, Node], tmp_path: Path) -> Iterator[Node]:
    """The only node behind a HAProxy."""
    haproxy = HAProxy(layers, tmp_path, certificate)
    haproxy.start(render_haproxy_cfg(replace(CLUSTER, origins=CLUSTER.origins[:1], edges=())))
    yield nodes["origin1"]
    haproxy.stop()


@pytest.mark.parametrize(("origins", "edges"), [(1, 0), (1, 1), (2, 2), (50, 500)])
def test_haproxy_accepts_the_file(
    origins: int, edges: int, layers: str, certificate: Path, tmp_path: Path
) -> None:
    config = replace(
        CLUSTER,
        origins=tuple(Server(f"origin{n}", f"10.0.0.{n}") for n in range(1, origins + 1)),
        edges=tuple(Server(f"edge{n}", f"10.0.{1 + n // 250}.{1 + n % 250}") for n in range(1, edges + 1)),
    )
    haproxy = HAProxy(layers, tmp_path, certificate)
    assert haproxy.validate(render_haproxy_cfg(config)) == (0, "")


def test_haproxy_accepts_the_most_applications(layers: str, certificate: Path, tmp_path: Path) -> None:
    config = replace(CLUSTER, applications=tuple(f"application-{n}" for n in range(50)))
    haproxy = HAProxy(layers, tmp_path, certificate)
    assert haproxy.validate(render_haproxy_cfg(config)) == (0, "")


@pytest.mark.usefixtures("only_origin")
def test_without_edges_the_origin_serves_all_ports() -> None:
    for port in (443, 5443):
        for target in ("/LiveApp/", "/LiveApp/?target=edge", "/LiveApp/?target=origin"):
            assert request_https(port, target).node == "origin1"
    assert request_https(5443, "/rest/v2/liveness").status == 404
    connection, node = open_rtmp()
    connection.close()
    assert node == "origin1"


def test_pause_of_the_only_node_fails_no_request(only_origin: Node) -> None:
    """More clients come than its queue of new connections holds, and no other node could answer them."""
    clients = [connect_tls(5443) for _ in range(250)]
    only_origin.resumed.clear()
    try:
        for client in clients:
            client.sendall(f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode())
        time.sleep(1.6)
    finally:
        only_origin.resumed.set()
    statuses: list[int] = []
    for client in clients:
        with client:
            statuses.append(read_response(client).status)
    assert set(statuses) == {200}


def test_only_node_may_take_its_time_for_a_segment(only_origin: Node) -> None:
    """A repeated request would go to the same node. After five repetitions it would fail."""
    only_origin.served_files.clear()
    assert request_https(5443, "/LiveApp/streams/a000000001.ts?seconds=3").status == 200
    assert only_origin.served_files == ["/LiveApp/streams/a000000001.ts"]
