"""Timeouts of each kind of connection. All scenarios run at the same time; each test checks the result of one."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import (
    TIMEOUT,
    connect,
    connect_tls,
    echoes,
    open_rtmp,
    open_websocket,
    read_response,
    request_https,
    send_request,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN
from tests.integration.haproxy.network_namespace import Network

# Longer than the five seconds of all timeouts in the guide.
PAUSE = 6


def receive_slow_response() -> int:
    return request_https(443, f"/LiveApp/rest/v2/slow?seconds={PAUSE}").status


def request_blocking_playlist() -> int:
    return request_https(5443, f"/LiveApp/streams/ll.m3u8?_HLS_msn=7&_HLS_part=1&seconds={PAUSE}").status


def receive_segment_with_a_pause() -> int:
    return request_https(5443, f"/LiveApp/streams/a000000001.ts?pause={PAUSE}").status


def stall_upload() -> int:
    with connect_tls(4444) as connection:
        connection.sendall(
            f"POST /LiveApp/rest/v2/vods HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 10\r\n\r\n12345".encode()
        )
        time.sleep(PAUSE)
        connection.sendall(b"67890")
        return read_response(connection, "POST").status


def pause_websocket() -> bool:
    connection, _ = open_websocket(5443, "/LiveApp/websocket")
    with connection:
        time.sleep(PAUSE)
        return echoes(connection)


def pause_rtmp() -> bool:
    connection, _ = open_rtmp()
    with connection:
        time.sleep(PAUSE)
        return echoes(connection)


def pause_between_requests() -> int:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n"
        send_request(connection, head)
        time.sleep(PAUSE)
        return send_request(connection, head).status


def measure_seconds_until_closed(port: int, data: bytes = b"") -> float:
    """Connects, sends only `data`, and returns the seconds until HAProxy closes the connection."""
    start = time.monotonic()
    with connect(port) as connection:
        connection.sendall(data)
        connection.recv(1)
        return time.monotonic() - start


SCENARIOS = (
    receive_slow_response,
    request_blocking_playlist,
    receive_segment_with_a_pause,
    stall_upload,
    pause_websocket,
    pause_rtmp,
    pause_between_requests,
)


class RunningScenarios:
    """The scenarios, started at the same time."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._results = {scenario.__name__: pool.submit(scenario) for scenario in SCENARIOS}
        self.idle_clients: dict[int, Future[float]] = {
            port: pool.submit(measure_seconds_until_closed, port) for port in (1935, 6080, 443)
        }
        self.partial_request = pool.submit(measure_seconds_until_closed, 80, b"GET / HTTP/1.1\r\nHost: x\r\n")

    def result(self, scenario: str) -> int | bool:
        return self._results[scenario].result()


@pytest.fixture(scope="module")
def scenarios(balancer: Balancer) -> Iterator[RunningScenarios]:
    with ThreadPoolExecutor(16) as pool:
        yield RunningScenarios(pool)


def test_slow_response_arrives(scenarios: RunningScenarios) -> None:
    """The guide's configuration returns 504 after five seconds."""
    assert scenarios.result("receive_slow_response") == 200


def test_blocking_low_latency_playlist_arrives(scenarios: RunningScenarios) -> None:
    assert scenarios.result("request_blocking_playlist") == 200


def test_segment_may_pause_after_its_first_byte(scenarios: RunningScenarios) -> None:
    assert scenarios.result("receive_segment_with_a_pause") == 200


def test_upload_may_pause(scenarios: RunningScenarios) -> None:
    assert scenarios.result("stall_upload") == 200


def test_inactive_websocket_stays_open(scenarios: RunningScenarios) -> None:
    assert scenarios.result("pause_websocket") is True


def test_inactive_rtmp_session_stays_open(scenarios: RunningScenarios) -> None:
    assert scenarios.result("pause_rtmp") is True


def test_connection_stays_open_between_segments(scenarios: RunningScenarios) -> None:
    assert scenarios.result("pause_between_requests") == 200


@pytest.mark.parametrize("port", [1935, 6080, 443])
def test_connection_without_data_is_closed(scenarios: RunningScenarios, port: int) -> None:
    assert 9 < scenarios.idle_clients[port].result() < TIMEOUT


def test_partial_request_is_closed(scenarios: RunningScenarios) -> None:
    assert 9 < scenarios.partial_request.result() < TIMEOUT


def test_connections_to_a_lost_node_are_closed(balancer: Balancer, network: Network) -> None:
    """haproxy.cfg closes an active connection after 30 seconds, an inactive one after 2 minutes. The test shortens both."""
    shortened = (
        render_haproxy_cfg(CLUSTER)
        .replace("tcp-ut 30s", "tcp-ut 2s")
        .replace("tcpka-idle 1m", "tcpka-idle 1s")
    )
    balancer.haproxy.reload(shortened.replace("tcpka-intvl 15s", "tcpka-intvl 1s"))
    rtmp, _ = open_rtmp()
    websocket, _ = open_websocket(443, "/LiveApp/websocket")
    with network.enter_nodes():
        subprocess.run(["ip", "address", "flush", "dev", "balancer"], check=True)
    with rtmp, websocket:
        rtmp.sendall(b"a frame that nobody will acknowledge")
        assert rtmp.recv(1) == b""
        assert websocket.recv(1) == b""
