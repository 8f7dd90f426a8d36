"""The viewers of bench.live: HLS viewers on port 5443 and open WebSockets on both media ports.

usage: python -m bench.live_viewers DOMAIN RATE WEBSOCKETS STREAM…

Runs on the sandbox's internet. Half of the viewers are sticky: they keep their connection and HAProxy's cookie. The others
are free: a new connection without a cookie for each request. A viewer sends its next request when it has the answer to the
last one. Prints `ready` when the WebSockets are open. Runs until its standard input closes, then prints a report as JSON.
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from dataclasses import dataclass, field

from tests.e2e.load_generator import Connection, LoadGenerator, Report

PORT = 5443
INTERVAL = 0.2
"""Seconds between the requests of a viewer."""
TIMEOUT = 30


@dataclass
class ViewersReport(Report):
    answers: list[tuple[int, float, float, str, str]] = field(
        default_factory=list[tuple[int, float, float, str, str]]
    )
    """Of each request: viewer (sticky ones are odd), Unix time, duration, status or error, and node."""


class Viewers(LoadGenerator):
    def __init__(self, domain: str, rate: float, websockets: int, streams: list[str]) -> None:
        super().__init__(domain, websockets)
        self.report: ViewersReport = ViewersReport()
        self._count = max(2, round(rate * INTERVAL))
        self._streams = streams

    async def _send_requests(self) -> None:
        await asyncio.gather(*map(self._view, range(self._count)))

    async def _view(self, viewer: int) -> None:
        sticky, stream = viewer % 2, self._streams[viewer // 2 % len(self._streams)]
        connection: Connection | None = None
        cookie = ""
        due = time.monotonic() + INTERVAL * viewer / self._count
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), due - time.monotonic())
                return
            due = max(due + INTERVAL, time.monotonic())
            # A page of the application gives a browser its cookie.
            path = f"/LiveApp/streams/{stream}.m3u8" if cookie or not sticky else "/LiveApp/"
            headers = f"Cookie: {cookie}\r\n" if cookie else "" if sticky else "Connection: close\r\n"
            started = time.time()
            head = ""
            try:
                async with asyncio.timeout(TIMEOUT):
                    connection = connection or await self._connect(PORT)
                    head = await connection.get_head(self._domain, path, headers)
                outcome = head.split()[1]
            except (OSError, EOFError, TimeoutError) as error:
                outcome = type(error).__name__
            if connection and (not sticky or not head or "connection: close" in head):
                connection.writer.close()
                connection = None
            if sticky and (given := re.search(r"set-cookie: (ams_edge=[^;\r]*)", head)):
                cookie = given[1].replace("ams_edge", "AMS_EDGE")
            node = re.search(r"x-stand-in-node: (\S+)", head)
            self.report.answers.append(
                (viewer, started, time.time() - started, outcome, node[1] if node else "")
            )


if __name__ == "__main__":
    domain, rate, websockets, *streams = sys.argv[1:]
    print(json.dumps(vars(asyncio.run(Viewers(domain, float(rate), int(websockets), streams).run()))))
