"""HTTP and WebSocket clients of the load balancer. They send paths and headers exactly as given."""

import base64
import json
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from sandbox.cloud.process_tree import CLONE_NEWNET, setns
from tests.e2e.running_cluster import CA_FILE

T = TypeVar("T")

WEBSOCKET_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_PING = json.dumps({"command": "ping"}).encode()
# A client must mask its frames; a mask of zeros leaves the text unchanged.
PING_FRAME = bytes([0x81, 0x80 | len(_PING)]) + b"\0\0\0\0" + _PING
"""Ant Media's ping message as a WebSocket text frame."""


def is_pong(frame_type: int, payload: bytes) -> bool:
    """True if a WebSocket frame is Ant Media's answer to its ping message."""
    return frame_type == 0x81 and json.loads(payload) == {"command": "pong"}


def basic_auth_header(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def unverified_tls() -> ssl.SSLContext:
    """Returns a TLS context that accepts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def get_peer_certificate(connection: ssl.SSLSocket) -> x509.Certificate:
    return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


TIMEOUT = 250
"""Seconds. A busy machine may pause a process for many of them. HAProxy responds itself after `timeout server`, five minutes."""


class SandboxInternet:
    """The network namespace of the sandbox's internet. Sockets created by `call` belong to it."""

    def __init__(self, process_inside: int) -> None:
        def enter() -> None:
            with Path(f"/proc/{process_inside}/ns/net").open("rb") as network:
                setns(network.fileno(), CLONE_NEWNET)

        self._thread = ThreadPoolExecutor(1, initializer=enter)  # a network namespace belongs to a thread

    def call(self, function: Callable[[], T]) -> T:
        return self._thread.submit(function).result()

    def connect(self, address: str, port: int, source: str) -> socket.socket:
        connection = self.call(socket.socket)
        connection.settimeout(TIMEOUT)
        connection.bind((source, 0))
        connection.connect((address, port))
        return connection


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower()) or None

    @property
    def node(self) -> str | None:
        """Host name of the media node that responded; None if HAProxy itself responded."""
        return self.header("X-Stand-In-Node")

    @property
    def redirect(self) -> tuple[int, str | None]:
        return self.status, self.header("Location")


class Client:
    """A client on one network. `connect` opens a connection from there to a port of the load balancer."""

    def __init__(self, connect: Callable[[int], socket.socket]) -> None:
        self.connect = connect
        self._trust = ssl.create_default_context(cafile=str(CA_FILE))
        self._trust.set_alpn_protocols(["http/1.1"])

    def connect_tls(self, port: int, domain: str, trust: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Connects with TLS. Without `trust`, the certificate must be valid for the domain."""
        return (trust or self._trust).wrap_socket(self.connect(port), server_hostname=domain)

    def _send_request(self, url: str, method: str, headers: str, body: bytes) -> socket.socket:
        """Sends a request and returns its connection."""
        scheme, _, rest = url.partition("://")
        authority, slash, target = rest.partition("/")
        parsed = urlsplit(url)
        port = parsed.port or {"http": 80, "https": 443}[scheme]
        connection = self.connect_tls(port, str(parsed.hostname)) if scheme == "https" else self.connect(port)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {slash or '/'}{target} HTTP/1.1\r\nHost: {authority}\r\n{length}{headers}\r\n"
        connection.sendall(head.encode("latin-1") + body)
        return connection

    def get(self, url: str, headers: str = "", method: str = "GET", body: bytes = b"") -> Response:
        """Sends one request on a new connection. `headers` are whole lines."""
        with self._send_request(url, method, headers, body) as connection:
            response = HTTPResponse(connection, method=method)
            response.begin()
            return Response(response.status, response.getheaders(), response.read())

    def post_json(self, url: str, value: object) -> Response:
        return self.get(url, "Content-Type: application/json\r\n", "POST", json.dumps(value).encode())

    def open_websocket(self, url: str, headers: str = "") -> "WebSocket":
        connection = self._send_request(url, "GET", WEBSOCKET_UPGRADE + headers, b"")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)  # one at a time: what follows the head belongs to the WebSocket
            assert byte, head
            head += byte
        status, *lines = head.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 101 "), head
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        return WebSocket(connection, fields["x-stand-in-node"])


class WebSocket:
    """An open WebSocket to Ant Media and the host name of its node."""

    def __init__(self, connection: socket.socket, node: str) -> None:
        self._connection = connection
        self.node = node

    def responds_to_ping(self) -> bool:
        """True if Ant Media answers its ping message with its pong message."""
        self._connection.sendall(PING_FRAME)
        frame_type, length = self._receive(2)
        return is_pong(frame_type, self._receive(length))

    def is_closed(self) -> bool:
        """Waits for the server to send something: False if it is data."""
        return self._connection.recv(1) == b""

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._connection.recv(length - len(data))
            if not more:
                raise ConnectionResetError("the WebSocket was closed")
            data += more
        return data

    def close(self) -> None:
        self._connection.close()


def loopback_client(address: str) -> Client:
    """Returns a client on this host that reaches a cluster at its loopback address."""
    return Client(lambda port: socket.create_connection((address, port), timeout=TIMEOUT))
