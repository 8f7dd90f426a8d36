"""Health checks and failover. The tests depend on each other's order, because a check interval takes real seconds."""

import time
from collections.abc import Callable

from tests.integration.haproxy.clients import connect, echoes, open_rtmp, open_websocket, request_https
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.dummy_node import Node

ORIGINS = {server.name for server in CLUSTER.origins}
EDGES = {server.name for server in CLUSTER.edges}


def set_health(nodes: dict[str, Node], names: set[str], healthy: bool) -> None:
    for name in names:
        nodes[name].healthy = healthy


def wait_for(condition: Callable[[], bool]) -> float:
    """Returns the seconds until the condition was true."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 30, "the condition was not true within 30 s"
        time.sleep(0.1)
    return time.monotonic() - start


def server_states(balancer: Balancer, names: set[str]) -> set[str]:
    """Returns the states of the servers in all backends. Each is checked in one backend and tracked in the others."""
    return {
        status for server, status in balancer.haproxy.server_states().items() if server.split("/")[1] in names
    }


def slow_starting_servers(balancer: Balancer) -> set[str]:
    """Returns the servers in slow start."""
    header, *rows = (
        line.split(",") for line in balancer.haproxy.ask("show stat -1 4 -1").split("\n") if line
    )
    return {f"{row[0]}/{row[1]}" for row in rows if row[header.index("throttle")] not in ("", "100")}


def responding_nodes(port: int) -> set[str]:
    return {request_https(port, "/LiveApp/").node for _ in range(6)}


def test_failed_health_checks_move_traffic_until_recovery(balancer: Balancer) -> None:
    nodes = balancer.nodes
    wait_for(lambda: server_states(balancer, ORIGINS | EDGES) == {"UP"})
    websocket, _ = open_websocket(443, "/LiveApp/websocket")

    # The ports stay open and liveness returns 500, which the TCP check of the guide would not detect.
    set_health(nodes, ORIGINS, healthy=False)
    wait_for(lambda: server_states(balancer, ORIGINS) == {"DOWN"})
    assert responding_nodes(443) == responding_nodes(5443) == EDGES
    assert request_https(4444, "/").status == 503
    with connect(1935) as connection:
        connection.sendall(b"\x03" + bytes(1536))
        assert connection.recv(1) == b""
    # Open connections stay open, since a node that is down may only be slow.
    with websocket:
        assert echoes(websocket)

    # Origins recover after three passed checks, because AMS passes them before its applications answer. Meanwhile the edges fail.
    set_health(nodes, ORIGINS, healthy=True)
    set_health(nodes, EDGES, healthy=False)
    recovery = wait_for(lambda: server_states(balancer, ORIGINS) == {"UP"})
    assert recovery > 3
    # They start slowly in every backend.
    assert slow_starting_servers(balancer) >= {
        f"{backend}/{name}" for backend in ("origins", "panel", "rtmp") for name in ORIGINS
    }
    wait_for(lambda: server_states(balancer, EDGES) == {"DOWN"})
    assert responding_nodes(443) == responding_nodes(5443) == ORIGINS
    connection, node = open_rtmp()
    connection.close()
    assert node in ORIGINS
    assert request_https(4444, "/").node in ORIGINS


def test_node_crash_fails_no_request(balancer: Balancer) -> None:
    """Before health checks detect the crash, requests that cannot connect are sent to another node."""
    assert responding_nodes(443) == ORIGINS
    balancer.nodes["origin1"].stop()
    for _ in range(6):
        assert request_https(443, "/LiveApp/").node == "origin2"
        assert request_https(443, "/LiveApp/", method="POST", body=b"x").node == "origin2"
        assert request_https(4444, "/", "Cookie: AMS_PANEL=origin1\r\n").node == "origin2"
        connection, node = open_rtmp()
        connection.close()
        assert node == "origin2"
    assert server_states(balancer, {"origin1"}) & {"UP", "UP 1/3", "UP 2/3"}
