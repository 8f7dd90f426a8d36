"""A steady load on the media ports: requests on kept and on new connections, and WebSockets that stay open.

usage: load_generator.py DOMAIN   (on the sandbox's internet; prints `ready` once the WebSockets are open, goes on until its standard
                         input ends, then prints what came of it as JSON)
"""

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

PORTS = (443, 5443)
RATE = 200
"""Requests a second, half on each port; half of them on connections that are kept, half each on a new one."""
WEBSOCKETS = 500
KEPT = 8
"""Connections a port that carry the requests on kept ones."""
PATIENCE = 10
BETWEEN_PINGS = 4

PING = json.dumps({"command": "ping"}).encode()
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@dataclass
class Report:
    seconds: float = 0.0
    """From the first request until the last answer."""
    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    """Why, and how often."""
    latest: float = 0.0
    """By how many seconds a request was sent later than it was due."""
    slowest: float = 0.0
    websockets: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    pongs: int = 0
    """That the WebSocket with the fewest has had."""


@dataclass(frozen=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def get(self, host: str, path: str, headers: str) -> str:
        """The status line of the answer, which is read to its end."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        await self.reader.readexactly(int(lines.get("content-length", 0)))
        return head.splitlines()[0]

    async def is_answered(self) -> bool:
        """Whether a ping of Ant Media's own comes back as its pong."""
        mask = b"\0\0\0\0"
        self.writer.write(bytes([0x81, 0x80 | len(PING)]) + mask + PING)
        kind, length = await self.reader.readexactly(2)
        return kind == 0x81 and json.loads(await self.reader.readexactly(length)) == {"command": "pong"}


class Load:
    def __init__(self, domain: str) -> None:
        self.report = Report()
        self._domain = domain
        self._trust = ssl.create_default_context()
        self._kept: dict[int, asyncio.Queue[Connection | None]] = {port: asyncio.Queue() for port in PORTS}
        self._over = asyncio.Event()

    async def run(self) -> Report:
        for queue in self._kept.values():
            for _ in range(KEPT):
                queue.put_nowait(None)
        connections = await self._open_websockets()
        websockets = [asyncio.create_task(self._converse(connection)) for connection in connections]
        requests = asyncio.create_task(self._send_requests())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        self._over.set()
        await requests
        self.report.pongs = min(await asyncio.gather(*websockets))
        return self.report

    async def _open_websockets(self) -> list[Connection]:
        at_a_time = asyncio.Semaphore(10)

        async def open_one(number: int) -> Connection:
            async with at_a_time, asyncio.timeout(PATIENCE):
                connection = await self._connect(PORTS[number % 2])
                status = await connection.get(self._domain, "/LiveApp/websocket", UPGRADE)
                assert " 101 " in status, status
                return connection

        return await asyncio.gather(*map(open_one, range(WEBSOCKETS)))

    async def _converse(self, connection: Connection) -> int:
        """How many pongs came: the first at once, the last when all is over."""
        pongs = 0
        self.report.websockets += 1
        try:
            while True:
                last = self._over.is_set()
                async with asyncio.timeout(PATIENCE):
                    assert await connection.is_answered(), "no pong"
                pongs += 1
                if last:
                    return pongs
                # Whatever comes now is the end of it.
                end = asyncio.create_task(connection.reader.read(1))
                over = asyncio.create_task(self._over.wait())
                await asyncio.wait({end, over}, timeout=BETWEEN_PINGS, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                if end.done():
                    raise ConnectionResetError(f"it ended with {end.result()!r}")
                end.cancel()
                await asyncio.wait({end})
        except Exception as error:
            self.report.dropped[f"{type(error).__name__}: {error}"] += 1
            return pongs

    async def _send_requests(self) -> None:
        """Each at its time, whatever became of those before it."""
        began = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        while not self._over.is_set():
            due = began + self.report.requests / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.report.latest = max(self.report.latest, time.monotonic() - due)
            task = asyncio.create_task(self._request(self.report.requests))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            self.report.requests += 1
        await asyncio.gather(*under_way)
        self.report.seconds = time.monotonic() - began

    async def _request(self, number: int) -> None:
        port, kept = PORTS[number % 2], number // 2 % 2
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                status = await (self._on_kept_connection(port) if kept else self._on_new_connection(port))
            assert " 200 " in status, status
        except Exception as error:
            how = "kept" if kept else "new"
            self.report.failed[f"{how} connection to {port}: {type(error).__name__}: {error}"] += 1
        self.report.slowest = max(self.report.slowest, time.monotonic() - began)

    async def _on_new_connection(self, port: int) -> str:
        connection = await self._connect(port)
        try:
            return await connection.get(self._domain, "/LiveApp/", "Connection: close\r\n")
        finally:
            connection.writer.close()

    async def _on_kept_connection(self, port: int) -> str:
        connection = await self._kept[port].get()
        try:
            if connection is None:
                connection = await self._connect(port)
            return await connection.get(self._domain, "/LiveApp/", "")
        except BaseException:
            connection = None
            raise
        finally:
            self._kept[port].put_nowait(connection)

    async def _connect(self, port: int) -> Connection:
        return Connection(*await asyncio.open_connection(self._domain, port, ssl=self._trust))


if __name__ == "__main__":
    print(json.dumps(vars(asyncio.run(Load(sys.argv[1]).run()))))
