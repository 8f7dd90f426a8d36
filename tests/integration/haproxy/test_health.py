"""Health checks and failover. The tests depend on each other's order, because health checks take real seconds."""

import threading
import time
from collections.abc import Callable
from http.client import HTTPException, IncompleteRead

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import (
    Response,
    connect,
    echoes,
    open_rtmp,
    open_websocket,
    request_https,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import STRETCH, stretch
from tests.integration.haproxy.network_namespace import Network

ORIGINS = {server.name for server in CLUSTER.origins}
EDGES = {server.name for server in CLUSTER.edges}


def set_health(nodes: dict[str, Node], names: set[str], healthy: bool) -> None:
    for name in names:
        nodes[name].liveness = 200 if healthy else 500


def wait_for(condition: Callable[[], bool]) -> float:
    """Returns the seconds until the condition was true."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 120, "the condition was not true within 120 s"
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

    set_health(nodes, ORIGINS, healthy=True)
    set_health(nodes, EDGES, healthy=False)
    wait_for(lambda: server_states(balancer, ORIGINS) == {"UP"})
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


def test_health_checks_count_as_no_viewer(balancer: Balancer) -> None:
    """AMS counts a GET request for a playlist as a viewer, and has no stream whose id contains ~."""
    node = balancer.nodes["origin1"]
    checks = {f"OPTIONS /{name}/streams/~.m3u8" for name in CLUSTER.applications}
    node.checks.clear()
    wait_for(lambda: all(node.checks.count(check) >= 2 for check in checks))
    assert set(node.checks) == checks


def test_node_is_down_while_one_application_does_not_serve(balancer: Balancer) -> None:
    node = balancer.nodes["origin1"]
    for status in (403, 500):
        node.application_status = {"live": status}
        wait_for(lambda: server_states(balancer, {"origin1"}) == {"DOWN"})
        node.application_status = {}
        wait_for(lambda: server_states(balancer, {"origin1"}) == {"UP"})


def test_viewers_see_no_node_that_starts(balancer: Balancer, network: Network) -> None:
    """Liveness passes before the applications serve: 2 s on an idle machine, 13 s on a busy one."""
    set_health(balancer.nodes, EDGES, healthy=True)
    wait_for(lambda: server_states(balancer, EDGES) == {"UP"})
    old = balancer.nodes["edge1"]
    statuses: list[int] = []
    stopped = threading.Event()

    def view(cookie: str) -> None:
        while not stopped.wait(0.02):
            statuses.append(request_https(5443, "/LiveApp/", cookie).status)

    viewers = [threading.Thread(target=view, args=(cookie,)) for cookie in ("", "Cookie: AMS_EDGE=edge1\r\n")]
    for viewer in viewers:
        viewer.start()
    try:
        old.stop()
        wait_for(lambda: server_states(balancer, {"edge1"}) == {"DOWN"})
        with network.enter_nodes():
            new = Node(old.name, old.address, application_status=dict.fromkeys(CLUSTER.applications, 403))
        balancer.nodes["edge1"] = new
        for liveness, seconds in ((500, 0.5), (403, 0.5), (200, 8)):
            new.liveness = liveness
            time.sleep(seconds)
        assert server_states(balancer, {"edge1"}) == {"DOWN"}
        # The applications are not ready at the same time.
        for name in CLUSTER.applications:
            del new.application_status[name]
            time.sleep(0.5)
        wait_for(lambda: server_states(balancer, {"edge1"}) == {"UP"})
        assert request_https(5443, "/LiveApp/", "Cookie: AMS_EDGE=edge1\r\n").node == "edge1"
    finally:
        stopped.set()
        for viewer in viewers:
            viewer.join()
    assert set(statuses) == {200}


def test_node_that_pauses_for_two_seconds_stays_up_and_one_that_hangs_is_down_within_three(
    balancer: Balancer,
) -> None:
    balancer.haproxy.reload(stretch(render_haproxy_cfg(CLUSTER)))
    wait_for(lambda: server_states(balancer, {"origin1"}) == {"UP"})
    node = balancer.nodes["origin1"]
    for _ in range(3):
        node.resumed.clear()
        time.sleep(2 * STRETCH)
        node.resumed.set()
        assert "DOWN" not in server_states(balancer, {"origin1"})
        wait_for(lambda: server_states(balancer, {"origin1"}) == {"UP"})

    def measure_seconds_until_down() -> float:
        node.resumed.clear()
        seconds = wait_for(lambda: server_states(balancer, {"origin1"}) == {"DOWN"})
        node.resumed.set()
        wait_for(lambda: server_states(balancer, {"origin1"}) == {"UP"})
        return seconds

    # A busy machine may delay a check.
    assert any(measure_seconds_until_down() < 3.1 * STRETCH for _ in range(3))
    balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))


def test_crash_of_all_edges_fails_no_request(balancer: Balancer, network: Network) -> None:
    """The origins serve before the health checks have noticed: refused connections count too."""
    wait_for(lambda: server_states(balancer, ORIGINS | EDGES) == {"UP"})
    answers: list[Response] = []
    failures: list[str] = []
    stopped = threading.Event()

    def view(cookie: str) -> None:
        while not stopped.is_set():
            try:
                answers.append(request_https(5443, "/LiveApp/streams/a.m3u8", cookie))
            except IncompleteRead:
                pass  # a response that has begun cannot be moved
            except (OSError, HTTPException) as error:
                failures.append(repr(error))

    cookies = ("", *(f"Cookie: AMS_EDGE={edge}\r\n" for edge in sorted(EDGES)))
    viewers = [threading.Thread(target=view, args=(cookie,)) for cookie in cookies * 4]
    for viewer in viewers:
        viewer.start()
    try:
        wait_for(lambda: len(answers) > 100)
        for edge in EDGES:
            balancer.nodes[edge].stop()
        served = len(answers)
        wait_for(lambda: server_states(balancer, EDGES) == {"DOWN"})
        wait_for(lambda: len(answers) > served + 200)
    finally:
        stopped.set()
        for viewer in viewers:
            viewer.join()
    failures += [str(answer.status) for answer in answers if answer.status != 200]
    assert not failures
    assert {answer.header("X-Node") for answer in answers[-10:]} <= ORIGINS
    with network.enter_nodes():
        for edge in EDGES:
            balancer.nodes[edge] = Node(edge, balancer.nodes[edge].address)
    wait_for(lambda: server_states(balancer, EDGES) == {"UP"})


def test_node_crash_fails_no_request(balancer: Balancer) -> None:
    """Requests that cannot connect are sent to another node. The test disables the health check, which would detect the crash."""
    assert responding_nodes(443) == ORIGINS
    balancer.haproxy.ask("disable health origins/origin1")
    balancer.nodes["origin1"].stop()
    for _ in range(6):
        assert request_https(443, "/LiveApp/").node == "origin2"
        assert request_https(443, "/LiveApp/", method="POST", body=b"x").node == "origin2"
        assert request_https(4444, "/", "Cookie: AMS_PANEL=origin1\r\n").node == "origin2"
        connection, node = open_rtmp()
        connection.close()
        assert node == "origin2"
