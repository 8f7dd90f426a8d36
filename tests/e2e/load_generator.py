"""A steady load on the media ports: requests on persistent and on new connections, and open WebSockets.

usage: python -m tests.e2e.load_generator DOMAIN [WEBSOCKETS [REQUESTS]]     requests per second

Runs on the sandbox's internet. Prints `ready` when the WebSockets are open. Runs until its standard input closes, then
prints a report as JSON.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.e2e.clients import PING_FRAME, WEBSOCKET_UPGRADE, is_pong

PORTS = (443, 5443)
RATE = 200
"""Requests per second, half on each port. Half use a persistent connection, half a new one."""
WEBSOCKETS = 500
PERSISTENT_CONNECTIONS = 8
"""Per port."""
TIMEOUT = 60
PING_INTERVAL = 4


@dataclass
class Report:
    seconds: float = 0.0
    """From the first request to the last response."""
    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    """Number of failures by reason."""
    max_delay: float = 0.0
    """Longest delay in seconds between a request's scheduled and its actual start."""
    max_duration: float = 0.0
    websockets: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    pongs: int = 0
    """Received by the WebSocket with the fewest."""


@dataclass(frozen=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def get(self, host: str, path: str, headers: str) -> str:
        """Reads the whole response and returns its status line, in lower case."""
        return (await self.get_head(host, path, headers)).splitlines()[0]

    async def get_head(self, host: str, path: str, headers: str) -> str:
        """Reads the whole response and returns its status line and headers, in lower case."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        await self.reader.readexactly(int(lines.get("content-length", 0)))
        return head

    async def responds_to_ping(self) -> bool:
        self.writer.write(PING_FRAME)
        frame_type, length = await self.reader.readexactly(2)
        return is_pong(frame_type, await self.reader.readexactly(length))


class LoadGenerator:
    def __init__(self, domain: str, websockets: int = WEBSOCKETS, rate: int = RATE) -> None:
        self.report = Report()
        self._domain = domain
        self._websockets = websockets
        self._rate = rate
        self._trust = ssl.create_default_context()
        self._idle: dict[int, asyncio.Queue[Connection | None]] = {port: asyncio.Queue() for port in PORTS}
        self._stopping = asyncio.Event()

    async def run(self) -> Report:
        for queue in self._idle.values():
            for _ in range(PERSISTENT_CONNECTIONS):
                queue.put_nowait(None)
        connections = await self._open_websockets()
        websockets = [asyncio.create_task(self._exchange_pings(connection)) for connection in connections]
        requests = asyncio.create_task(self._send_requests())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        self._stopping.set()
        await requests
        self.report.pongs = min(await asyncio.gather(*websockets), default=0)
        return self.report

    async def _open_websockets(self) -> list[Connection]:
        limit = asyncio.Semaphore(10)

        async def open_one(number: int) -> Connection:
            async with limit, asyncio.timeout(TIMEOUT):
                connection = await self._connect(PORTS[number % 2])
                status = await connection.get(self._domain, "/LiveApp/websocket", WEBSOCKET_UPGRADE)
                assert " 101 " in status, status
                return connection

        return await asyncio.gather(*map(open_one, range(self._websockets)))

    async def _exchange_pings(self, connection: Connection) -> int:
        """Returns the number of pongs. Pings at once, at each interval, and once more at the end."""
        pongs = 0
        self.report.websockets += 1
        try:
            while True:
                last = self._stopping.is_set()
                async with asyncio.timeout(TIMEOUT):
                    assert await connection.responds_to_ping(), "no pong"
                pongs += 1
                if last:
                    return pongs
                # Between pings the server sends nothing, so any input means that the connection ended.
                end = asyncio.create_task(connection.reader.read(1))
                stopping = asyncio.create_task(self._stopping.wait())
                await asyncio.wait(
                    {end, stopping}, timeout=PING_INTERVAL, return_when=asyncio.FIRST_COMPLETED
                )
                stopping.cancel()
                if end.done():
                    raise ConnectionResetError(f"the server sent {end.result()!r}")
                end.cancel()
                await asyncio.wait({end})
        except Exception as error:
            self.report.dropped[f"{type(error).__name__}: {error}"] += 1
            return pongs

    async def _send_requests(self) -> None:
        """Starts each request on schedule, without waiting for earlier ones."""
        started = time.monotonic()
        pending: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            due = started + self.report.requests / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.report.max_delay = max(self.report.max_delay, time.monotonic() - due)
            task = asyncio.create_task(self._request(self.report.requests))
            pending.add(task)
            task.add_done_callback(pending.discard)
            self.report.requests += 1
        await asyncio.gather(*pending)
        self.report.seconds = time.monotonic() - started

    async def _request(self, number: int) -> None:
        port, persistent = PORTS[number % 2], number // 2 % 2
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await (
                    self._request_on_persistent_connection(port)
                    if persistent
                    else self._request_on_new_connection(port)
                )
            assert " 200 " in status, status
        except Exception as error:
            kind = "persistent" if persistent else "new"
            self.report.failed[f"{kind} connection to {port}: {type(error).__name__}: {error}"] += 1
        self.report.max_duration = max(self.report.max_duration, time.monotonic() - started)

    async def _request_on_new_connection(self, port: int) -> str:
        connection = await self._connect(port)
        try:
            return await connection.get(self._domain, "/LiveApp/", "Connection: close\r\n")
        finally:
            connection.writer.close()

    async def _request_on_persistent_connection(self, port: int) -> str:
        connection = await self._idle[port].get()
        try:
            if connection is None:
                connection = await self._connect(port)
            return await connection.get(self._domain, "/LiveApp/", "")
        except BaseException:
            connection = None
            raise
        finally:
            self._idle[port].put_nowait(connection)

    async def _connect(self, port: int) -> Connection:
        return Connection(*await asyncio.open_connection(self._domain, port, ssl=self._trust))


if __name__ == "__main__":
    print(json.dumps(vars(asyncio.run(LoadGenerator(sys.argv[1], *map(int, sys.argv[2:])).run()))))
