"""HAProxy 3.0 accepts the rendered file without warnings for every size of cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.haproxy_config import Server, render_haproxy_cfg
from tests.integration.haproxy.clients import open_rtmp, request_https
from tests.integration.haproxy.conftest import CLUSTER
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import HAProxy


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


def test_without_edges_the_origin_serves_all_ports(
    layers: str, certificate: Path, nodes: dict[str, Node], tmp_path: Path
) -> None:
    haproxy = HAProxy(layers, tmp_path, certificate)
    haproxy.start(render_haproxy_cfg(replace(CLUSTER, origins=CLUSTER.origins[:1], edges=())))
    try:
        for port in (443, 5443):
            for target in ("/LiveApp/", "/LiveApp/?target=edge", "/LiveApp/?target=origin"):
                assert request_https(port, target).node == "origin1"
        assert request_https(5443, "/rest/v2/liveness").status == 404
        connection, node = open_rtmp()
        connection.close()
        assert node == "origin1"
    finally:
        haproxy.stop()
