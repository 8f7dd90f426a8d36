"""Measures what viewers see while an edge of the sandbox's cluster restarts Ant Media Server, again and again.

Needs a running cluster (`make up`). Sends 50 requests per second to port 5443, half of them with the cookie of edge1.
Each restart is `systemctl restart antmedia` on edge1, without draining. The next one follows when edge1 serves again.
Fails if a viewer got another answer than 200.
"""

import argparse
import http.client
import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from bench.background_threads import BackgroundThreads
from tests.project import PROJECT

ADDRESS = os.environ.get("SANDBOX_ADDRESS", "127.77.0.1")
DOMAIN = "live.ant-media.test"
PORT = 5443
RATE = 50
"""Requests per second."""
VIEWERS = 10
EDGE = "edge1"
LONGEST_START = 300
"""Seconds that a restart may take."""


class Viewers(BackgroundThreads):
    """Clients that request a page of an application, each on a persistent connection."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self.edge_served_at = 0.0
        """When the edge last answered with 200."""
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._view, args=(index,)) for index in range(VIEWERS)]
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._edge_host = run_on_edge("hostname").strip()

    def _view(self, index: int) -> None:
        interval = VIEWERS / RATE
        cookie = {"Cookie": f"AMS_EDGE={EDGE}"} if index % 2 else {}
        connection = http.client.HTTPSConnection(ADDRESS, PORT, timeout=30, context=self._context)
        due = time.monotonic() + interval * index / VIEWERS
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due += interval
            started = time.monotonic()
            try:
                connection.request("GET", "/LiveApp/", headers={"Host": f"{DOMAIN}:{PORT}", **cookie})
                response = connection.getresponse()
                response.read()
                answer, node = str(response.status), response.headers["X-Stand-In-Node"]
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                answer, node = type(error).__name__, None
            with self._lock:
                self.answers[answer] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
                if node == self._edge_host and answer == "200":
                    self.edge_served_at = started


def run_on_edge(*command: str) -> str:
    return subprocess.run(
        [PROJECT / "sandbox/bin/cloud", "shell", EDGE, *command], check=True, capture_output=True, text=True
    ).stdout


@contextmanager
def busy_loops(count: int) -> Generator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def restart_edge(viewers: Viewers) -> None:
    """Restarts the server on the edge. Returns three seconds after the edge serves viewers again."""
    run_on_edge("systemctl", "restart", "antmedia")
    restarted = time.monotonic()
    first = 0.0
    # Requests may reach the old process until systemctl returns.
    while not first or time.monotonic() < first + 3:
        if time.monotonic() > restarted + LONGEST_START:
            raise SystemExit(f"{EDGE} does not serve {LONGEST_START} s after its restart")
        if not first and viewers.edge_served_at > restarted + 1:
            first = time.monotonic()
        time.sleep(0.1)


def main(restarts: int, loops: int) -> None:
    with busy_loops(loops), Viewers() as viewers:
        time.sleep(2)
        for number in range(1, restarts + 1):
            before = viewers.answers.copy()
            started = time.monotonic()
            restart_edge(viewers)
            answers = ", ".join(
                f"{count} x {answer}" for answer, count in sorted((viewers.answers - before).items())
            )
            print(f"restart {number:2}: {time.monotonic() - started:5.1f} s   {answers}", flush=True)
    wrong = viewers.answers.total() - viewers.answers["200"]
    print(
        f"{restarts} restarts, {loops} busy loops: {viewers.answers.total()} requests, {wrong} wrong answers "
        f"{dict(viewers.answers - Counter({'200': viewers.answers['200']}))}, slowest {viewers.slowest:.1f} s"
    )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.node_restart",
        description=f"{__doc__}\nDefault: 20 restarts, no busy loops.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("restarts", nargs="?", type=int, default=20)
    parser.add_argument("loops", nargs="?", type=int, default=0, metavar="busy_loops")
    main(**vars(parser.parse_args()))
