"""Clients that are slow, idle or malformed, and viewers who must not notice them. The tests share one HAProxy."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cluster.haproxy_config import calculate_connection_limits, render_haproxy_cfg
from tests.integration.haproxy.clients import (
    connect,
    connect_tls,
    open_rtmp,
    open_websocket,
    read_response,
    request_https,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN

HOST = f"Host: {DOMAIN}\r\n".encode()


@pytest.fixture(autouse=True)
def open_files() -> Iterator[None]:
    """Allows this process as many open files as possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def idle_connections(count: int, addresses: int) -> Generator[list[socket.socket]]:
    """Opens connections from a number of addresses."""
    with contextlib.ExitStack() as stack:
        connections: list[socket.socket] = []
        for number in range(count):
            source = f"127.1.{number % addresses // 250}.{number % addresses % 250 + 1}"
            with contextlib.suppress(ConnectionResetError):
                connections.append(
                    stack.enter_context(socket.create_connection((BALANCER, 443), 20, (source, 0)))
                )
        yield connections


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition was not true within 60 s"


def assert_that_viewers_are_served() -> None:
    for port in (443, 5443):
        assert request_https(port, "/LiveApp/").status == 200
    connection, _ = open_rtmp()
    connection.close()


def reload(balancer: Balancer, text: str) -> None:
    """Reloads HAProxy and waits until the old worker, which counts connections for itself, has exited."""
    balancer.haproxy.reload(text)
    wait_for(lambda: balancer.haproxy.ask_master("show proc").count(" worker ") == 1)


def test_idle_connections_keep_nobody_out(balancer: Balancer) -> None:
    """Many addresses can open as many as fit into HAProxy: 32,768 on the default machine, 8,192 here."""
    # Opening them may take longer than HAProxy waits for a TLS handshake.
    reload(balancer, render_haproxy_cfg(CLUSTER).replace("timeout client-hs 10s", "timeout client-hs 10m"))
    half = calculate_connection_limits(CLUSTER.memory_mib).maxconn // 2
    with idle_connections(10_000, addresses=1) as connections:
        wait_for(lambda: sum(map(is_open, connections)) == half)
        assert_that_viewers_are_served()
    with idle_connections(7_000, addresses=500) as connections:
        assert_that_viewers_are_served()
        assert all(map(is_open, connections))
    reload(balancer, render_haproxy_cfg(CLUSTER))


def count_refused_connections(balancer: Balancer) -> dict[str, int]:
    header, *rows = (
        line.split(",") for line in balancer.haproxy.ask("show stat -1 1 -1").splitlines() if line
    )
    return {row[0]: int(row[header.index("dcon")]) for row in rows}


def is_served() -> bool:
    with contextlib.suppress(OSError):
        return request_https(443, "/LiveApp/").status == 200
    return False


def test_limit_of_connections_counts_all_ports_and_ends_with_the_connection(balancer: Balancer) -> None:
    reload(balancer, render_haproxy_cfg(replace(CLUSTER, connections_per_client=10)))
    frontends = {"http", "publish", "play", "panel", "rtmp", "rtmps", "tls-or-http"}
    try:
        with contextlib.ExitStack() as stack:
            # WebSockets, which stay open.
            for _ in range(10):
                stack.enter_context(open_websocket(443, "/LiveApp/websocket")[0])
            assert not is_served()
            before = count_refused_connections(balancer)
            for port in (80, 443, 5443, 4444, 1935, 1936, 5080, 6080):
                with contextlib.suppress(ConnectionResetError):
                    connect(port).close()
            wait_for(
                lambda: all(count_refused_connections(balancer)[name] > before[name] for name in frontends)
            )
        wait_for(is_served)
    finally:
        reload(balancer, render_haproxy_cfg(CLUSTER))


def send_slowly(head: bytes, port: int = 443) -> bytes:
    """Sends the head of a request and then a byte a second, and returns the start of the response."""
    with connect_tls(port) as connection:
        connection.sendall(head)
        connection.settimeout(1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return connection.recv(100)
            connection.sendall(b"a")
    raise AssertionError("HAProxy waited for more than 60 s")


def half_open_rtmp(port: int, data: bytes) -> bytes:
    with connect(port) if port == 1935 else connect_tls(port) as connection:
        connection.sendall(data)
        connection.settimeout(60)
        return connection.recv(1)


def test_slow_clients_take_no_thread_of_a_node_and_are_sent_away(balancer: Balancer) -> None:
    """A thread of AMS waits for the body of a request; it has 300."""
    for node in balancer.nodes.values():
        node.targets.clear()
    with ThreadPoolExecutor(8) as pool:
        head = b"POST /LiveApp/whip/a HTTP/1.1\r\n" + HOST
        slow = [
            pool.submit(send_slowly, b"GET /LiveApp/ HTTP/1.1\r\nX-Slow: "),
            pool.submit(send_slowly, head + b"Content-Length: 1000\r\n\r\n"),
        ]
        handshakes = [
            pool.submit(half_open_rtmp, port, data)
            for port in (1935, 1936)
            for data in (b"\x03", b"\x03" + bytes(1000))
        ]
        assert_that_viewers_are_served()
        for response in slow:
            assert response.result().split()[1] == b"408"
        for handshake in handshakes:
            assert handshake.result() == b""
    assert not [target for node in balancer.nodes.values() for target in node.targets if "whip" in target]


def test_slow_reader_ends_no_other_response(balancer: Balancer) -> None:
    """The node sends 16 MiB, more than all buffers hold."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            reader = stack.enter_context(connect_tls(5443))
            reader.sendall(b"GET /LiveApp/streams/a.mp4?mebibytes=16 HTTP/1.1\r\n" + HOST + b"\r\n")
            assert reader.recv(1)
        assert_that_viewers_are_served()


# HAProxy's response, and the request as a node received it.
MALFORMED = {
    "both Content-Length and Transfer-Encoding": (
        b"POST /LiveApp/x HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /LiveApp/smuggled HTTP/1.1\r\n" + HOST + b"\r\n",
        200,
    ),
    "two lengths": (
        b"POST /LiveApp/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
        400,
    ),
    "unknown Transfer-Encoding": (
        b"POST /LiveApp/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\n1",
        400,
    ),
    "bare LF after each line": (
        b"GET /LiveApp/x HTTP/1.1\n" + HOST.strip() + b"\nX-Forwarded-For: 127.0.0.1\n\n",
        200,
    ),
    "bare LF in chunks": (
        b"POST /LiveApp/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
        400,
    ),
    "bare CR in a header": (b"GET /LiveApp/x HTTP/1.1\r\n" + HOST + b"X-A: b\rX-B: c\r\n\r\n", 400),
    "20 kB of headers": (
        b"GET /LiveApp/x HTTP/1.1\r\n" + HOST + b"X-A: " + bytes([97]) * 20_000 + b"\r\n\r\n",
        400,
    ),
    "200 headers": (
        b"GET /LiveApp/x HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"\r\n",
        400,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_is_refused_or_rewritten(balancer: Balancer, name: str) -> None:
    request, status = MALFORMED[name]
    for node in balancer.nodes.values():
        node.targets.clear()
    with connect_tls(443) as connection:
        connection.sendall(request)
        response = read_response(connection, request.split()[0].decode())
        assert response.status == status
    received = [target for node in balancer.nodes.values() for target in node.targets]
    assert len(received) == (1 if status == 200 else 0)
    if status == 200:
        framing = response.received.all("Content-Length") + response.received.all("Transfer-Encoding")
        assert framing in ([], ["chunked"])
        assert response.received.all("X-Forwarded-For") == ["203.0.113.9"]
    assert_that_viewers_are_served()
