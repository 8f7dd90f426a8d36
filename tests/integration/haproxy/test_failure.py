"""What viewers and publishers notice when nodes hang, are cut off, or pause. The tests share one HAProxy."""

import contextlib
import socket
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import Response, echoes, open_rtmp, open_websocket, request_https
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import STRETCH, stretch
from tests.integration.haproxy.network_namespace import Network

LOST = ("edge1", "origin1")
STICKY = "Cookie: AMS_EDGE=edge1\r\n"
STREAMS = "/LiveApp/streams"


@contextmanager
def hang(balancer: Balancer, network: Network) -> Generator[None]:
    """Stops the servers and not the kernels of the nodes, as SIGSTOP does."""
    for name in LOST:
        balancer.nodes[name].resumed.clear()
    try:
        yield
    finally:
        for name in LOST:
            balancer.nodes[name].resumed.set()


@contextmanager
def cut_off(balancer: Balancer, network: Network) -> Generator[None]:
    with network.cut_off(*(balancer.nodes[name].address for name in LOST)):
        yield


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition was not true within 60 s"
        time.sleep(0.05)


def states(balancer: Balancer, *names: str) -> set[str]:
    return {
        state for server, state in balancer.haproxy.server_states().items() if server.split("/")[1] in names
    }


@pytest.fixture(scope="module")
def exact_checks() -> bool:
    return True


@pytest.fixture
def stretched_times(balancer: Balancer) -> Iterator[None]:
    balancer.haproxy.reload(stretch(render_haproxy_cfg(CLUSTER)))
    yield
    balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))


@pytest.fixture(scope="module", autouse=True)
def watch(balancer: Balancer) -> Iterator[None]:
    """Runs the script that closes the connections to silent nodes, as its systemd service does."""
    script = balancer.haproxy.start_script("close-dead-connections.sh")
    yield
    script.terminate()
    script.wait(60)


def open_rtmp_at(name: str) -> socket.socket:
    """Opens sessions until one is at the node: it gets few of them while it starts slowly."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection, node = open_rtmp()
        if node == name:
            return connection
        connection.close()
    raise AssertionError(f"no RTMP session at {name}")


class Viewers:
    """Requests and sessions in the background, each with the time at which it ended."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def request(
        self, path: str, method: str = "GET", headers: str = STICKY
    ) -> Future[tuple[Response, float]]:
        def run() -> tuple[Response, float]:
            response = request_https(5443, path, headers, method, b"x" if method == "POST" else b"")
            return response, time.monotonic()

        return self._pool.submit(run)

    def wait_for_end(self, session: socket.socket) -> Future[float]:
        def run() -> float:
            with session, contextlib.suppress(ConnectionError):
                session.settimeout(60)
                assert session.recv(1) == b""
            return time.monotonic()

        return self._pool.submit(run)


Fault = Callable[[Balancer, Network], AbstractContextManager[None]]


def lose_nodes(balancer: Balancer, network: Network, fault: Fault) -> bool:
    """Loses edge1 and origin1, and returns whether everybody left them as quickly as docs/availability.md says."""
    nodes = balancer.nodes
    wait_for(lambda: states(balancer, *nodes) == {"UP"})
    # After the reload the sessions of the old worker are watched by nobody else.
    sessions = [open_websocket(5443, "/LiveApp/websocket", STICKY)[0], open_rtmp_at("origin1")]
    balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
    sessions += [open_websocket(5443, "/LiveApp/websocket", STICKY)[0], open_rtmp_at("origin1")]
    for node in nodes.values():
        node.targets.clear()
    with ThreadPoolExecutor(32) as pool:
        viewers = Viewers(pool)
        started = time.monotonic()
        media = [viewers.request(f"{STREAMS}/{name}?seconds=1") for name in ("a.m3u8", "a000000001.ts")]
        # Without its delay the request would end before the fault.
        blocking = viewers.request(f"{STREAMS}/a.m3u8?_HLS_msn=7&seconds=1")
        rest = viewers.request("/LiveApp/rest/v2/broadcasts/a?seconds=1")
        post = viewers.request("/LiveApp/rest/v2/broadcasts/create?seconds=1", "POST")
        wait_for(lambda: len(nodes["edge1"].targets) == 5)
        with fault(balancer, network):
            failed = time.monotonic()
            ends = [viewers.wait_for_end(session) for session in sessions]
            media += [viewers.request(f"{STREAMS}/a.m3u8", headers=headers) for headers in (STICKY, "") * 4]
            for response, _ in (request.result() for request in media):
                assert response.status == 200
                assert response.header("X-Node") != "edge1"
            wait_for(lambda: {state.split()[0] for state in states(balancer, "edge1", "origin1")} == {"DOWN"})
            for response, _ in (request.result() for request in (blocking, rest)):
                assert response.status == 200
                assert response.header("X-Node") == "edge2"
            assert post.result()[0].status == 502
            closed = [end.result() for end in ends]
    posts = [target for node in nodes.values() for target in node.targets if target.startswith("POST")]
    assert len(posts) == 1
    wait_for(lambda: states(balancer, *nodes) == {"UP"})
    assert request_https(5443, "/LiveApp/", STICKY).node == "edge1"
    return (
        max(request.result()[1] for request in media) - started < 4
        # Their second second is that of the other node.
        and max(request.result()[1] for request in (blocking, rest)) - failed < 11
        and max(post.result()[1], *closed) - failed < 10
    )


@pytest.mark.parametrize("fault", [hang, cut_off])
def test_lost_nodes_are_left_by_everybody(balancer: Balancer, network: Network, fault: Fault) -> None:
    # A busy machine may delay a response.
    assert any(lose_nodes(balancer, network, fault) for _ in range(3))


@pytest.mark.usefixtures("stretched_times")
def test_pause_of_two_seconds_moves_no_request_and_ends_no_session(balancer: Balancer) -> None:
    node = balancer.nodes["edge1"]
    wait_for(lambda: states(balancer, "edge1") == {"UP"})
    session, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    with ThreadPoolExecutor(4) as pool, session:
        node.resumed.clear()
        requests = [Viewers(pool).request(f"{STREAMS}/a{suffix}") for suffix in (".m3u8", ".ts")]
        time.sleep(2 * STRETCH)
        node.resumed.set()
        for request in requests:
            response, _ = request.result()
            assert response.header("X-Node") == "edge1"
        assert all(state.startswith("UP") for state in states(balancer, "edge1"))
        assert echoes(session)


@pytest.mark.usefixtures("stretched_times")
def test_slow_node_stays_in_service(balancer: Balancer) -> None:
    """Each response may take a second, also where a health check has several requests."""
    node = balancer.nodes["edge1"]
    wait_for(lambda: states(balancer, "edge1") == {"UP"})
    node.delay = 0.7 * STRETCH
    for _ in range(8):
        assert request_https(5443, f"{STREAMS}/a.m3u8", STICKY).header("X-Node") == "edge1"
        assert states(balancer, "edge1") == {"UP"}
    node.delay = 0


def test_sessions_stay_when_the_load_balancer_has_no_port_left(balancer: Balancer) -> None:
    """HAProxy, and its health checks, cannot open more connections to a healthy node."""
    node = balancer.nodes["edge1"]
    wait_for(lambda: states(balancer, "edge1") == {"UP"})
    session, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    usual = ports.read_text()
    with session, contextlib.ExitStack() as connections:
        connections.callback(ports.write_text, usual)
        ports.write_text("40000 40001")
        with contextlib.suppress(OSError):
            while True:
                connections.enter_context(socket.create_connection((node.address, 5080), 20))
        wait_for(lambda: states(balancer, "edge1") == {"DOWN"})
        for _ in range(12):
            assert echoes(session)
            time.sleep(0.5)
        assert states(balancer, "edge1") == {"DOWN"}
    wait_for(lambda: states(balancer, "edge1") == {"UP"})


def test_slow_segment_is_served_although_every_node_is_slow(balancer: Balancer) -> None:
    """The first request fails: HAProxy leaves each node after 2.5 s. The last test: the others expect these seconds."""
    wait_for(lambda: states(balancer, *balancer.nodes) == {"UP"})
    target = f"{STREAMS}/a000000001.ts?seconds=3"
    assert request_https(5443, target).status == 504
    assert request_https(5443, target).status == 200
