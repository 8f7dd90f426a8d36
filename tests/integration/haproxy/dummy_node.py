"""A dummy media node: behaves like AMS towards HAProxy and responds with the request that it received."""

import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, node: "Node", port: int, handler: type[BaseRequestHandler]) -> None:
        self.node = node
        super().__init__((node.address, port), handler)
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, client = super().get_request()
        self._accepted.append(connection)
        return connection, client

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores connections that clients close early: tests do that."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self._accepted:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Node:
    """A dummy AMS: HTTP on 5080 and RTMP on 1935 of one address."""

    def __init__(self, name: str, address: str, http: int = 5080, rtmp: int | None = 1935) -> None:
        self.name = name
        self.address = address
        self.liveness = 200
        """Status of the health check of the root application."""
        self.application_status: dict[str, int] = {}
        """Status of every response of an application that does not serve, by name."""
        self.resumed = threading.Event()
        """While it is not set, the node accepts connections and does not respond, as during a garbage collection."""
        self.resumed.set()
        self.checks: list[str] = []
        """Method and path of the health checks' requests for applications."""
        self.connections = 0
        """Number of HTTP connections, without those of health checks."""
        self.dropped_methods: list[str] = []
        """Methods of the requests that the node read and did not answer."""
        self._servers = [_Server(self, http, _HTTP)]
        if rtmp:
            self._servers.append(_Server(self, rtmp, _RTMP))

    def stop(self) -> None:
        """Closes the listeners and all connections, as a crash does."""
        for server in self._servers:
            server.stop()


class _HTTP(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    counted = False

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        node = self.server.node
        target = self.requestline.split(" ")[1]
        path = urlsplit(target).path
        node.resumed.wait(30)
        if path == "/rest/v2/liveness":
            self._answer(node.liveness, b'{"status":"ok"}', [])
            return
        application = path.split("/")[1]
        is_check = path.endswith("/streams/~.m3u8")
        if is_check:
            node.checks.append(f"{self.command} {path}")
        if is_check or application in node.application_status:
            # AMS answers OPTIONS without looking for the stream.
            self._answer(node.application_status.get(application, 200), b"", [])
            return
        if not self.counted:
            self.counted = True
            node.connections += 1
        if self._upgrade():
            return
        self._read_body()
        if path == "/LiveApp/drop":
            node.dropped_methods.append(self.command)
            self.close_connection = True
            return
        seconds = parse_qs(urlsplit(target).query).get("seconds")
        time.sleep(float(seconds[0]) if seconds else 0)
        at_root = application in ("", "rest")
        headers = [
            ("Set-Cookie", f"JSESSIONID={node.name}; Path={'/' if at_root else f'/{application}'}; HttpOnly")
        ]
        if at_root and self.headers.get("X-Forwarded-Proto") == "https":
            headers.append(("Strict-Transport-Security", "max-age=31536000;includeSubDomains"))
        if "/streams/" in path:
            headers.append(("Cache-Control", "max-age=10"))
        received = {
            "node": node.name,
            "target": target,
            "method": self.command,
            "headers": self.headers.items(),
        }
        self._answer(404 if path.endswith("/missing.m3u8") else 200, json.dumps(received).encode(), headers)

    do_POST = do_PUT = do_OPTIONS = do_DELETE = do_GET  # noqa: N815 - the base class's convention

    def _read_body(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _upgrade(self) -> bool:
        """Answers an upgrade with 101, then sends the node's name and echoes. AMS upgrades to h2c as well as to WebSocket."""
        protocols = ", ".join(self.headers.get_all("Upgrade") or []).lower()
        if not protocols:
            return False
        key = (self.headers.get("Sec-WebSocket-Key") or "").encode()
        accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID).digest()).decode()
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "h2c" if "h2c" in protocols else "websocket")
        self.send_header("X-Received-Upgrade", protocols)
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        _greet_and_echo(self.connection, self.server.node.name.encode())
        return True

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if status >= 500:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


class _RTMP(BaseRequestHandler):
    """Accepts any bytes: HAProxy must reject what is not RTMP."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        connection: socket.socket = self.request
        if connection.recv(1537):
            _greet_and_echo(connection, b"\x03" + self.server.node.name.encode())


def _greet_and_echo(connection: socket.socket, greeting: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(greeting)
        while data := connection.recv(65536):
            connection.sendall(data)
