"""Which nodes get traffic when some are not well. One story, told in order: a check interval is real seconds."""

import time
from collections.abc import Callable

from tests.integration.haproxy.clients import connect, echoes, https, open_rtmp, open_websocket
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.dummy_node import Node

ORIGINS = {server.name for server in CLUSTER.origins}
EDGES = {server.name for server in CLUSTER.edges}


def set_health(nodes: dict[str, Node], names: set[str], healthy: bool) -> None:
    for name in names:
        nodes[name].healthy = healthy


def wait_for(condition: Callable[[], bool]) -> float:
    """Returns the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 30, "it did not come to pass"
        time.sleep(0.1)
    return time.monotonic() - start


def status_of(balancer: Balancer, names: set[str]) -> set[str]:
    """In every backend: a server is checked in one of them and must be believed in all."""
    return {status for server, status in balancer.haproxy.status().items() if server.split("/")[1] in names}


def throttled(balancer: Balancer) -> set[str]:
    """Servers in their slow start."""
    header, *rows = (
        line.split(",") for line in balancer.haproxy.ask("show stat -1 4 -1").split("\n") if line
    )
    return {f"{row[0]}/{row[1]}" for row in rows if row[header.index("throttle")] not in ("", "100")}


def serving(port: int) -> set[str]:
    return {https(port, "/LiveApp/").node for _ in range(6)}


def test_health_from_failure_to_recovery(balancer: Balancer) -> None:
    nodes = balancer.nodes
    wait_for(lambda: status_of(balancer, ORIGINS | EDGES) == {"UP"})
    websocket, _ = open_websocket(443, "/LiveApp/websocket")

    # Ports stay open, liveness says 500: a bare TCP check, the guide's, would see nothing.
    set_health(nodes, ORIGINS, healthy=False)
    wait_for(lambda: status_of(balancer, ORIGINS) == {"DOWN"})
    assert serving(443) == serving(5443) == EDGES
    assert https(4444, "/").status == 503
    with connect(1935) as connection:
        connection.sendall(b"\x03" + bytes(1536))
        assert connection.recv(1) == b""
    # Down may only be slow: what is open stays open.
    with websocket:
        assert echoes(websocket)

    # Back after three checks in a row, since AMS says so before its applications answer; and the other way round.
    set_health(nodes, ORIGINS, healthy=True)
    set_health(nodes, EDGES, healthy=False)
    recovery = wait_for(lambda: status_of(balancer, ORIGINS) == {"UP"})
    assert recovery > 3
    # Nor are they given their full share at once, in any backend.
    assert throttled(balancer) >= {
        f"{backend}/{name}" for backend in ("origins", "panel", "rtmp") for name in ORIGINS
    }
    wait_for(lambda: status_of(balancer, EDGES) == {"DOWN"})
    assert serving(443) == serving(5443) == ORIGINS
    connection, node = open_rtmp()
    connection.close()
    assert node in ORIGINS
    assert https(4444, "/").node in ORIGINS


def test_a_node_that_is_suddenly_gone_costs_no_request(balancer: Balancer) -> None:
    """Until the checks notice, what cannot be connected goes to another node."""
    assert serving(443) == ORIGINS
    balancer.nodes["origin1"].stop()
    for _ in range(6):
        assert https(443, "/LiveApp/").node == "origin2"
        assert https(443, "/LiveApp/", method="POST", body=b"x").node == "origin2"
        assert https(4444, "/", "Cookie: AMS_PANEL=origin1\r\n").node == "origin2"
        connection, node = open_rtmp()
        connection.close()
        assert node == "origin2"
    assert status_of(balancer, {"origin1"}) & {"UP", "UP 1/3", "UP 2/3"}
