"""Clients that say exactly what a test wants said; nothing here tidies a path, a header or a byte."""

import json
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPResponse

from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN

CLIENT = "203.0.113.9"
WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return ", ".join(self.all(name)) or None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def seen(self) -> "Seen":
        """What the node says reached it."""
        content = json.loads(self.body)
        return Seen(content["node"], content["target"], [(name, value) for name, value in content["headers"]])

    @property
    def node(self) -> str:
        return self.seen.node


@dataclass(frozen=True)
class Seen:
    node: str
    target: str
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def connect(port: int) -> socket.socket:
    return socket.create_connection((BALANCER, port), timeout=20, source_address=(CLIENT, 0))


def tls_context(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols or ("http/1.1",)))
    return context


def connect_tls(port: int, *protocols: str) -> ssl.SSLSocket:
    return tls_context(*protocols).wrap_socket(connect(port), server_hostname=DOMAIN)


def read_response(connection: socket.socket, method: str = "GET") -> Response:
    response = HTTPResponse(connection, method=method)
    response.begin()
    return Response(response.status, response.getheaders(), response.read())


def exchange(
    connection: socket.socket, head: str | bytes, body: bytes = b"", method: str = "GET"
) -> Response:
    connection.sendall((head.encode("latin-1") if isinstance(head, str) else head) + b"\r\n" + body)
    return read_response(connection, method)


def https(port: int, target: str, headers: str = "", method: str = "GET", body: bytes = b"") -> Response:
    """One request over TLS on a connection of its own; `headers` are whole lines."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: {DOMAIN}:{port}\r\n{length}{headers}"
    with connect_tls(port) as connection:
        return exchange(connection, head, body, method)


def http(port: int, target: str, host: str | None = DOMAIN) -> Response:
    """One request in the clear; without a host in HTTP/1.0."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n" if host else f"GET {target} HTTP/1.0\r\n"
    with connect(port) as connection:
        return exchange(connection, head)


def open_websocket(port: int, target: str) -> tuple[ssl.SSLSocket, str]:
    """An upgraded connection, and the name of the node that took it."""
    connection = connect_tls(port)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {DOMAIN}\r\n{WEBSOCKET}\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
        data = connection.recv(4096)
        assert data, received
        received += data
    head, _, greeting = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return connection, greeting.decode()


def open_rtmp() -> tuple[socket.socket, str]:
    """A connection after the first half of RTMP's handshake, and the node that answered."""
    connection = connect(1935)
    connection.sendall(b"\x03" + bytes(1536))
    answer = connection.recv(4096)
    assert answer[:1] == b"\x03"
    return connection, answer[1:].decode()


def echoes(connection: socket.socket) -> bool:
    connection.sendall(b"still there?")
    return connection.recv(4096) == b"still there?"


class HTTP2:
    """Enough of HTTP/2 to send any header and read status and data: literal header fields, one stream."""

    def __init__(self, port: int) -> None:
        self._socket = connect_tls(port, "h2")
        assert self._socket.selected_alpn_protocol() == "h2"
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(4, 0, 0, b""))

    @staticmethod
    def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def request(self, headers: list[tuple[str, str]], end: bool = True) -> None:
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
            for name, value in headers
        )
        self._socket.sendall(self._frame(1, 4 | (1 if end else 0), 1, block))

    def send(self, data: bytes) -> None:
        self._socket.sendall(self._frame(0, 0, 1, data))

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            assert more, "HAProxy closed the connection"
            data += more
        return data

    def read(self, wanted: int) -> bytes:
        """The payload of the stream's next frame of a kind (0 data, 1 headers); `RST` or `GOAWAY` when refused."""
        while True:
            head = self._receive(9)
            payload = self._receive(int.from_bytes(head[:3], "big"))
            if head[3] in (3, 7):
                return {3: b"RST", 7: b"GOAWAY"}[head[3]]
            if head[3] == wanted and head[5:9] == b"\x00\x00\x00\x01":
                return payload

    def status(self) -> str:
        """Of the response: from HPACK's static table, or spelled out."""
        block = self.read(1)
        static = {0x88: "200", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
        if block[:1] == b"\x48":
            return block[2:5].decode()
        return static.get(block[0], repr(block[:8]))

    def close(self) -> None:
        self._socket.close()
