"""A dummy media node: behaves like AMS towards HAProxy and responds with the request that it received."""

import base64
import contextlib
import gzip
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# web.xml of AMS's applications sets the age of these types (ExpiresFilter). Other files have only Last-Modified and ETag.
_MAX_AGE = {"m3u8": 0, "mpd": 0, "ts": 10, "m4s": 10}
_FILES = ("m3u8", "mpd", "ts", "m4s", "fmp4", "mp4", "png", "html")
_ETAG = 'W/"300-1764149000000"'
_LAST_MODIFIED = "Thu, 20 Nov 2025 09:00:00 GMT"


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # Tomcat's acceptCount, which AMS leaves at its default (conf/jee-container.xml).
    request_queue_size = 100

    def __init__(self, node: "Node", port: int, handler: type[BaseRequestHandler]) -> None:
        self.node = node
        super().__init__((node.address, port), handler)
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def get_request(self) -> tuple[socket.socket, object]:
        self.node.resumed.wait(60)
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

    def __init__(
        self,
        name: str,
        address: str,
        http: int = 5080,
        rtmp: int | None = 1935,
        application_status: dict[str, int] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.liveness = 200
        """Status of the health check of the root application."""
        self.application_status: dict[str, int] = application_status or {}
        """Status of every response of an application that does not serve, by name."""
        self.resumed = threading.Event()
        """While it is not set, the node accepts, reads and answers nothing; its kernel acknowledges what it receives, and queues
        new connections."""
        self.resumed.set()
        self.delay = 0.0
        """Seconds before each response, those to health checks included."""
        self.checks: list[str] = []
        """Method and path of the health checks' requests for applications."""
        self.connections = 0
        """Number of HTTP connections, without those of health checks."""
        self.dropped_methods: list[str] = []
        """Methods of the requests that the node read and did not answer."""
        self.targets: list[str] = []
        """Method and target of the requests that the node received, without those of health checks."""
        self.served_files: list[str] = []
        """Paths of the requests for files."""
        self.whip_sessions: set[str] = set()
        """Paths of the WHIP and WHEP sessions that the node has."""
        self._servers = [_Server(self, http, _HTTP)]
        if rtmp:
            self._servers.append(_Server(self, rtmp, _RTMP))

    def stop(self) -> None:
        """Closes the listeners and all connections, as a crash does."""
        for server in self._servers:
            server.stop()


class _HTTP(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Tomcat sends headers and a small body at once. A crash does not come between them.
    wbufsize = -1
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    counted = False

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def do_GET(self) -> None:
        node = self.server.node
        target = self.requestline.split(" ")[1]
        path = urlsplit(target).path
        node.resumed.wait(60)
        time.sleep(node.delay)
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
        node.targets.append(f"{self.command} {target}")
        if not self.counted:
            self.counted = True
            node.connections += 1
        if self._upgrade():
            return
        self._read_body()
        if path.split("/")[2:3] in (["whip"], ["whep"]):
            self._serve_whip(path)
            return
        if path.split("/")[2:3] in (["streams"], ["previews"]) and path.rpartition(".")[2] in _FILES:
            self._wait("seconds")
            self._serve_file(path)
            return
        if path == "/LiveApp/drop":
            node.dropped_methods.append(self.command)
            self.close_connection = True
            return
        self._wait("seconds")
        at_root = application in ("", "rest")
        headers = [("Access-Control-Allow-Origin", "*"), *self._start_session("/")] if at_root else []
        if at_root and self.headers.get("X-Forwarded-Proto") == "https":
            headers.append(("Strict-Transport-Security", "max-age=31536000;includeSubDomains"))
        received = {
            "node": node.name,
            "target": target,
            "method": self.command,
            "headers": self.headers.items(),
        }
        self._answer(200, json.dumps(received).encode(), headers)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - the base class's convention

    def _read_body(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _wait(self, parameter: str) -> None:
        """Waits for the seconds that a parameter of the query requests, and while the node hangs."""
        time.sleep(float(parse_qs(urlsplit(self.path).query).get(parameter, ["0"])[0]))
        self.server.node.resumed.wait(60)

    def _start_session(self, path: str) -> list[tuple[str, str]]:
        """AMS's TokenFilterManager starts a session for any request below /APP/streams that has none, segments included."""
        if "JSESSIONID=" in (self.headers.get("Cookie") or ""):
            return []
        return [("Set-Cookie", f"JSESSIONID={self.server.node.name}; Path={path}; HttpOnly")]

    def _serve_file(self, path: str) -> None:
        """Serves a file of 300 bytes as Tomcat's DefaultServlet does, and .m4s in chunks as AMS's ChunkedTransferServlet does."""
        self.server.node.served_files.append(path)
        suffix = path.rpartition(".")[2]
        headers = [("Access-Control-Allow-Origin", "*")]
        if "/streams/" in path:
            headers += self._start_session("/" + path.split("/")[1])
        if "/missing" in path:
            self._answer(404, b"not found", headers)
            return
        if suffix != "m4s":
            headers += [("ETag", _ETAG), ("Accept-Ranges", "bytes")]
            if self.headers.get("If-None-Match") == _ETAG:
                self._answer(304, b"", headers)
                return
            headers += [("Last-Modified", _LAST_MODIFIED)]
        if suffix in _MAX_AGE:
            headers += [
                ("Cache-Control", f"max-age={_MAX_AGE[suffix]}"),
                ("Expires", self.date_time_string()),
            ]
        body = (path.encode() + b"#" * 300)[:300]
        if mebibytes := parse_qs(urlsplit(self.path).query).get("mebibytes"):
            body = bytes(int(mebibytes[0]) << 20)
        status = 200
        if suffix == "m3u8" and "gzip" in (self.headers.get("Accept-Encoding") or ""):
            body = gzip.compress(body, mtime=0)
            headers += [("Content-Encoding", "gzip"), ("Vary", "accept-encoding")]
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or ""):
            first, last = int(part[1]), int(part[2])
            headers += [("Content-Range", f"bytes {first}-{last}/{len(body)}")]
            status, body = 206, body[first : last + 1]
        self._answer(status, body, headers, chunked=suffix == "m4s")

    def _serve_whip(self, path: str) -> None:
        """Answers as AMS's WhipEndpoint does: an absolute Location without a port, because Tomcat sees only the scheme."""
        sessions = self.server.node.whip_sessions
        headers = [("Access-Control-Allow-Origin", "*")]
        if self.command == "POST":
            session = str(uuid.uuid4())
            sessions.add(f"{path}/{session}")
            host = self.headers["Host"].partition(":")[0]
            location = f"{self.headers.get('X-Forwarded-Proto', 'http')}://{host}{self.path}/{session}"
            self._answer(201, b"v=0", [*headers, ("Location", location), ("ETag", session)])
        elif self.command == "DELETE":
            found = path in sessions
            sessions.discard(path)
            self._answer(200 if found else 404, b"{}", headers)
        else:
            self._answer(405, b"", headers)

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
        self.wfile.flush()
        self.close_connection = True
        _greet_and_echo(self.connection, self.server.node, b"")
        return True

    def _answer(
        self, status: int, body: bytes, headers: list[tuple[str, str]], chunked: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in (("X-Node", self.server.node.name), ("X-Target", self.path), *headers):
            self.send_header(name, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif status != 304:
            self.send_header("Content-Length", str(len(body)))
        if status >= 500:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            if "pause=" in self.path:
                self.wfile.write(body[:1])
                self.wfile.flush()
                self._wait("pause")
                body = body[1:]
            self.wfile.write(body)


class _RTMP(BaseRequestHandler):
    """Accepts any bytes: HAProxy must reject what is not RTMP."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        connection: socket.socket = self.request
        if connection.recv(1537):
            _greet_and_echo(connection, self.server.node, b"\x03")


def _greet_and_echo(connection: socket.socket, node: Node, prefix: bytes) -> None:
    """Sends the node's name, and then what it receives."""
    with contextlib.suppress(OSError):
        connection.sendall(prefix + node.name.encode())
        while data := connection.recv(65536):
            node.resumed.wait(60)
            connection.sendall(data)
