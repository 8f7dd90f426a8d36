"""Who connects to the load balancer, from one place or another; nothing here tidies a path or a header."""

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

from sandbox.cloud.process_tree import CLONE_NEWNET, setns

T = TypeVar("T")

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Internet:
    """The sandbox's internet: sockets that are made here are there."""

    def __init__(self, process_there: int) -> None:
        def enter() -> None:
            with Path(f"/proc/{process_there}/ns/net").open("rb") as network:
                setns(network.fileno(), CLONE_NEWNET)

        self._thread = ThreadPoolExecutor(1, initializer=enter)  # a thread has a network of its own

    def do(self, function: Callable[[], T]) -> T:
        return self._thread.submit(function).result()

    def connect(self, address: str, port: int, source: str) -> socket.socket:
        connection = self.do(socket.socket)
        connection.settimeout(10)
        connection.bind((source, 0))
        connection.connect((address, port))
        return connection


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower()) or None

    @property
    def node(self) -> str | None:
        """The host name of the media node that answered; None when HAProxy itself did."""
        return self.header("X-Stand-In-Node")

    @property
    def redirect(self) -> tuple[int, str | None]:
        return self.status, self.header("Location")


class Visitor:
    """Somebody on one network; `connect` opens a connection to a port of the load balancer from there."""

    def __init__(self, connect: Callable[[int], socket.socket], certificates: Path) -> None:
        self.connect = connect
        self._trust = ssl.create_default_context(cafile=str(certificates))
        self._trust.set_alpn_protocols(["http/1.1"])

    def connect_tls(self, port: int, domain: str, trust: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """The server's certificate must hold for the domain."""
        return (trust or self._trust).wrap_socket(self.connect(port), server_hostname=domain)

    def _open(self, url: str, method: str, headers: str, body: bytes) -> tuple[socket.socket, str]:
        """A connection on which a request was sent, and the host that it was sent to."""
        scheme, _, rest = url.partition("://")
        place, slash, target = rest.partition("/")
        host = str(urlsplit(url).hostname)
        port = urlsplit(url).port or {"http": 80, "https": 443}[scheme]
        connection = self.connect_tls(port, host) if scheme == "https" else self.connect(port)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {slash or '/'}{target} HTTP/1.1\r\nHost: {place}\r\n{length}{headers}\r\n"
        connection.sendall(head.encode("latin-1") + body)
        return connection, host

    def get(self, url: str, headers: str = "", method: str = "GET", body: bytes = b"") -> Answer:
        """One request on a connection of its own; `headers` are whole lines."""
        connection, _ = self._open(url, method, headers, body)
        with connection:
            response = HTTPResponse(connection, method=method)
            response.begin()
            return Answer(response.status, response.getheaders(), response.read())

    def post_json(self, url: str, value: object) -> Answer:
        return self.get(url, "Content-Type: application/json\r\n", "POST", json.dumps(value).encode())

    def open_websocket(self, url: str, headers: str = "") -> "WebSocket":
        connection, _ = self._open(url, "GET", UPGRADE + headers, b"")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)  # nothing of what comes after the head may be taken
            assert byte, head
            head += byte
        status, *lines = head.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 101 "), head
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        return WebSocket(connection, fields["x-stand-in-node"])


class WebSocket:
    """An open WebSocket to Ant Media, and the host name of the node that it leads to."""

    def __init__(self, connection: socket.socket, node: str) -> None:
        self._connection = connection
        self.node = node

    def answers(self) -> bool:
        """Whether a ping of Ant Media's own comes back as its pong."""
        text = json.dumps({"command": "ping"}).encode()
        mask = b"\0\0\0\0"  # a client's frames are masked; with zeros, the text stays as it is
        self._connection.sendall(bytes([0x81, 0x80 | len(text)]) + mask + text)
        kind, length = self._receive(2)
        return kind == 0x81 and json.loads(self._receive(length)) == {"command": "pong"}

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
