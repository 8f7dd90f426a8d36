"""How long a silence may be on each kind of connection. The scenarios wait side by side; each test asks for one."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import (
    connect,
    connect_tls,
    echoes,
    exchange,
    https,
    open_rtmp,
    open_websocket,
    read_response,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN
from tests.integration.haproxy.network_namespace import Network

# Longer than the guide's five seconds for everything.
SILENCE = 6


def slow_answer() -> int:
    return https(443, f"/LiveApp/rest/v2/slow?seconds={SILENCE}").status


def blocking_playlist() -> int:
    return https(5443, f"/LiveApp/streams/ll.m3u8?_HLS_msn=7&_HLS_part=1&seconds={SILENCE}").status


def stalling_upload() -> int:
    with connect_tls(4444) as connection:
        connection.sendall(
            f"POST /LiveApp/rest/v2/vods HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 10\r\n\r\n12345".encode()
        )
        time.sleep(SILENCE)
        connection.sendall(b"67890")
        return read_response(connection, "POST").status


def silent_websocket() -> bool:
    connection, _ = open_websocket(5443, "/LiveApp/websocket")
    with connection:
        time.sleep(SILENCE)
        return echoes(connection)


def silent_rtmp() -> bool:
    connection, _ = open_rtmp()
    with connection:
        time.sleep(SILENCE)
        return echoes(connection)


def idle_keep_alive() -> int:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n"
        exchange(connection, head)
        time.sleep(SILENCE)
        return exchange(connection, head).status


def seconds_until_closed(port: int, say: bytes = b"") -> float:
    """How long a client is borne that connects and goes no further."""
    with connect(port) as connection:
        start = time.monotonic()
        connection.sendall(say)
        connection.recv(1)
        return time.monotonic() - start


SCENARIOS = (slow_answer, blocking_playlist, stalling_upload, silent_websocket, silent_rtmp, idle_keep_alive)


class Waiting:
    """All scenarios, started at once."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._results = {scenario.__name__: pool.submit(scenario) for scenario in SCENARIOS}
        self.closings: dict[int, Future[float]] = {
            port: pool.submit(seconds_until_closed, port) for port in (1935, 6080, 443)
        }
        self.half_a_request = pool.submit(seconds_until_closed, 80, b"GET / HTTP/1.1\r\nHost: x\r\n")

    def outcome(self, scenario: str) -> int | bool:
        return self._results[scenario].result(30)


@pytest.fixture(scope="module")
def waiting(balancer: Balancer) -> Iterator[Waiting]:
    with ThreadPoolExecutor(16) as pool:
        yield Waiting(pool)


def test_a_slow_answer_arrives(waiting: Waiting) -> None:
    """The guide: 504 after five seconds."""
    assert waiting.outcome("slow_answer") == 200


def test_a_blocking_low_latency_playlist_arrives(waiting: Waiting) -> None:
    assert waiting.outcome("blocking_playlist") == 200


def test_an_upload_may_stall(waiting: Waiting) -> None:
    assert waiting.outcome("stalling_upload") == 200


def test_a_silent_websocket_lives(waiting: Waiting) -> None:
    assert waiting.outcome("silent_websocket") is True


def test_a_silent_rtmp_session_lives(waiting: Waiting) -> None:
    assert waiting.outcome("silent_rtmp") is True


def test_an_idle_viewer_keeps_its_connection_between_segments(waiting: Waiting) -> None:
    assert waiting.outcome("idle_keep_alive") == 200


@pytest.mark.parametrize("port", [1935, 6080, 443])
def test_who_connects_and_says_nothing_holds_no_slot(waiting: Waiting, port: int) -> None:
    assert 9 < waiting.closings[port].result(30) < 20


def test_half_a_request_is_not_waited_for(waiting: Waiting) -> None:
    assert 9 < waiting.half_a_request.result(30) < 20


def test_a_node_that_is_gone_without_a_word_is_noticed(balancer: Balancer, network: Network) -> None:
    """As the file has it after 30 seconds for one that is written to and 2 minutes for a silent one; here in a hurry."""
    hurried = render_haproxy_cfg(CLUSTER).replace("tcp-ut 30s", "tcp-ut 2s").replace("tcpka-idle 1m", "tcpka-idle 1s")
    balancer.haproxy.reload(hurried.replace("tcpka-intvl 15s", "tcpka-intvl 1s"))
    rtmp, _ = open_rtmp()
    websocket, _ = open_websocket(443, "/LiveApp/websocket")
    with network.at_nodes():
        subprocess.run(["ip", "address", "flush", "dev", "balancer"], check=True)
    with rtmp, websocket:
        rtmp.sendall(b"a frame that nobody will acknowledge")
        rtmp.settimeout(20)
        assert rtmp.recv(1) == b""
        websocket.settimeout(20)
        assert websocket.recv(1) == b""
