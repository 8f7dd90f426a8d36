"""Clients that h2load does not offer: new connections with or without TLS resumption, and WebSockets. Runs in the image.

Prints a JSON object. Standard library only.
"""

import argparse
import json
import socket
import ssl
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

PORT = 5443
HOST = "live.example.com"
PLAYLIST = f"GET /LiveApp/streams/test.m3u8 HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
UPGRADE = (
    f"GET /LiveApp/websocket HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
# A masked text frame with AMS's smallest command.
COMMAND = b'{"command":"ping"}'
MESSAGE = bytes([0x81, 0x80 | len(COMMAND), 0, 0, 0, 0]) + COMMAND


def make_context(version: str, group: str) -> ssl.SSLContext:
    """Returns a client's TLS settings; empty arguments leave OpenSSL's defaults, which include ML-KEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if group:
        context.set_ecdh_curve(group)
    return context


def connect(
    context: ssl.SSLContext, balancer: str, source: str = "", session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    plain = socket.create_connection(
        (balancer, PORT), timeout=60, source_address=(source, 0) if source else None
    )
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=HOST, session=session)


def open_connections(arguments: argparse.Namespace) -> Counter[str]:
    """Opens connections one after the other in some threads, each with one request, and counts how TLS began."""
    context = make_context(arguments.version, arguments.group)
    counts: Counter[str] = Counter()

    def work(connections: int) -> None:
        session = None
        for _ in range(connections):
            with connect(context, arguments.balancer, session=session) as connection:
                connection.sendall(PLAYLIST)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
                counts["requests"] += answer.startswith(b"HTTP/1.1 200 ")
                counts["resumed"] += bool(connection.session_reused)
                counts[str(connection.version())] += 1
                # TLS 1.3 sends tickets after the handshake, so they are here only now.
                session = connection.session if arguments.resume else None

    with ThreadPoolExecutor(arguments.threads) as threads:
        list(threads.map(work, [arguments.count // arguments.threads] * arguments.threads))
    return counts


def open_websockets(arguments: argparse.Namespace) -> list[ssl.SSLSocket]:
    context = make_context("", "")
    sockets: list[ssl.SSLSocket] = []
    for number in range(arguments.count):
        connection = connect(context, arguments.balancer, arguments.sources[number % len(arguments.sources)])
        connection.sendall(UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            if not (part := connection.recv(4096)):
                raise SystemExit(f"WebSocket {number}: the connection was closed after {answer!r}")
            answer += part
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"WebSocket {number}: {answer!r}")
        sockets.append(connection)
    return sockets


def echo(connection: ssl.SSLSocket) -> None:
    received = 0
    while received < len(MESSAGE):
        if not (part := connection.recv(4096)):
            raise SystemExit("a WebSocket was closed")
        received += len(part)


def exchange_messages(arguments: argparse.Namespace) -> Counter[str]:
    """Sends a message on each WebSocket and waits for all responses, over and over."""
    sockets = open_websockets(arguments)
    for _ in range(arguments.messages):
        for connection in sockets:
            connection.sendall(MESSAGE)
        for connection in sockets:
            echo(connection)
    return Counter(requests=arguments.messages * len(sockets))


def hold_websockets(arguments: argparse.Namespace) -> Counter[str]:
    """Keeps WebSockets open until standard input ends; then each must still answer."""
    sockets = open_websockets(arguments)
    print("open", flush=True)
    sys.stdin.read()
    for connection in sockets:
        connection.sendall(MESSAGE)
        echo(connection)
    return Counter(requests=len(sockets))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["connections", "messages", "hold"])
    parser.add_argument("balancer")
    parser.add_argument("count", type=int)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--version", default="")
    parser.add_argument("--group", default="")
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--sources", nargs="+", default=[""])
    arguments = parser.parse_args()
    work = {"connections": open_connections, "messages": exchange_messages, "hold": hold_websockets}
    print(json.dumps(work[arguments.work](arguments)))


if __name__ == "__main__":
    main()
