"""Clients that send requests byte for byte, without normalizing paths or headers: HTTP, HTTP/2, WebSocket, RTMP."""

import json
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPResponse

from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN

CLIENT = "203.0.113.9"
"""An administrator's address."""
STRANGER = "203.0.113.66"
TIMEOUT = 50
"""Seconds. A busy machine may pause a process for many of them. It is less than HAProxy's `timeout client`, a minute."""
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
    def received(self) -> "ReceivedRequest":
        """The request as the node received it."""
        content = json.loads(self.body)
        return ReceivedRequest(
            content["node"], content["target"], [(name, value) for name, value in content["headers"]]
        )

    @property
    def node(self) -> str:
        return self.received.node


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as a dummy node received it."""

    node: str
    target: str
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


def connect(port: int, source: str = CLIENT) -> socket.socket:
    return socket.create_connection((BALANCER, port), timeout=TIMEOUT, source_address=(source, 0))


def tls_context(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols or ("http/1.1",)))
    return context


def connect_tls(port: int, *protocols: str, source: str = CLIENT) -> ssl.SSLSocket:
    return tls_context(*protocols).wrap_socket(connect(port, source), server_hostname=DOMAIN)


def read_response(connection: socket.socket, method: str = "GET") -> Response:
    response = HTTPResponse(connection, method=method)
    response.begin()
    return Response(response.status, response.getheaders(), response.read())


def send_request(
    connection: socket.socket, head: str | bytes, body: bytes = b"", method: str = "GET"
) -> Response:
    """Sends the lines of `head`, an empty line and the body, and returns the response."""
    connection.sendall((head.encode("latin-1") if isinstance(head, str) else head) + b"\r\n" + body)
    return read_response(connection, method)


def request_https(
    port: int,
    target: str,
    headers: str = "",
    method: str = "GET",
    body: bytes = b"",
    source: str = CLIENT,
) -> Response:
    """Sends a request over TLS on a new connection. `headers` are whole lines."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: {DOMAIN}:{port}\r\n{length}{headers}"
    with connect_tls(port, source=source) as connection:
        return send_request(connection, head, body, method)


def request_http(port: int, target: str, host: str | None = DOMAIN) -> Response:
    """Sends a GET request over plain HTTP on a new connection: HTTP/1.0 without `host`, else HTTP/1.1."""
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n" if host else f"GET {target} HTTP/1.0\r\n"
    with connect(port) as connection:
        return send_request(connection, head)


def request_node(address: str, target: str, headers: str = "", method: str = "GET") -> Response:
    """Sends a request straight to a node."""
    with socket.create_connection((address, 5080), timeout=TIMEOUT) as connection:
        return send_request(
            connection, f"{method} {target} HTTP/1.1\r\nHost: {DOMAIN}:5443\r\n{headers}", method=method
        )


def request_plain(port: int, target: str) -> Response | None:
    """Sends a GET request to a port of this machine. Returns None if nothing listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            return send_request(connection, f"GET {target} HTTP/1.1\r\nHost: {DOMAIN}\r\n")
    except ConnectionRefusedError:
        return None


def open_websocket(port: int, target: str, headers: str = "") -> tuple[ssl.SSLSocket, str]:
    """Returns an upgraded connection and the name of its node."""
    connection = connect_tls(port)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {DOMAIN}\r\n{headers}{WEBSOCKET}\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
        data = connection.recv(4096)
        assert data, received
        received += data
    head, _, greeting = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return connection, greeting.decode()


def open_rtmp(port: int = 1935) -> tuple[socket.socket, str]:
    """Returns a connection after the first half of RTMP's handshake, and the name of its node. Port 1936 has TLS."""
    connection = connect_tls(port) if port == 1936 else connect(port)
    connection.sendall(b"\x03" + bytes(1536))
    answer = connection.recv(4096)
    assert answer[:1] == b"\x03"
    return connection, answer[1:].decode()


def echoes(connection: socket.socket) -> bool:
    connection.sendall(b"still there?")
    return connection.recv(4096) == b"still there?"


def is_closed(connection: socket.socket) -> bool:
    """Waits until the other side closes the connection."""
    try:
        return connection.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


class HTTP2:
    """A minimal HTTP/2 client: one stream, header fields sent as literals."""

    def __init__(self, port: int) -> None:
        self._socket = connect_tls(port, "h2")
        assert self._socket.selected_alpn_protocol() == "h2"
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._encode_frame(4, 0, 0, b""))

    @staticmethod
    def _encode_frame(type: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([type, flags]) + stream.to_bytes(4, "big") + payload

    def send_headers(self, headers: list[tuple[str, str]], end_stream: bool = True) -> None:
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode("latin-1")
            for name, value in headers
        )
        self._socket.sendall(self._encode_frame(1, 4 | (1 if end_stream else 0), 1, block))

    def send_data(self, data: bytes) -> None:
        self._socket.sendall(self._encode_frame(0, 0, 1, data))

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            assert more, "HAProxy closed the connection"
            data += more
        return data

    def read_frame(self, type: int) -> bytes:
        """Returns the payload of the next frame of a type (0 data, 1 headers), or `RST` or `GOAWAY` if the request is refused."""
        while True:
            head = self._receive(9)
            payload = self._receive(int.from_bytes(head[:3], "big"))
            if head[3] in (3, 7):
                return {3: b"RST", 7: b"GOAWAY"}[head[3]]
            if head[3] == type and head[5:9] == b"\x00\x00\x00\x01":
                return payload

    def read_status(self) -> str:
        """Returns the status of the response, encoded as an index into HPACK's static table or as a literal."""
        block = self.read_frame(1)
        static = {0x88: "200", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
        if block[:1] == b"\x48":
            return block[2:5].decode()
        return static.get(block[0], repr(block[:8]))

    def close(self) -> None:
        self._socket.close()
