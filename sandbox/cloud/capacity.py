"""How many machines this host has room for, as EC2 tells that it has none."""

import contextlib
import os
import time
from pathlib import Path
from wsgiref.types import StartResponse

from sandbox.cloud.process_tree import inotify_instance

LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
EACH = 5
"""Inotify instances that systemd and what it starts take in a machine. Of other things a host has enough."""
BOOT = 15
"""Seconds after which a machine has them."""


class Capacity:
    """Counts what is free on the host by taking it for a moment: others, and other clouds, use it too."""

    def __init__(self) -> None:
        self._started: list[float] = []

    def take(self) -> bool:
        """Room for one machine more; it is taken then."""
        now = time.monotonic()
        self._started = [then for then in self._started if now - then < BOOT]
        wanted = EACH * (len(self._started) + 1)
        with contextlib.ExitStack() as taken:
            try:
                for _ in range(wanted):
                    taken.callback(os.close, inotify_instance())
            except OSError:
                return False
        self._started.append(now)
        return True


def refuse(start_response: StartResponse) -> list[bytes]:
    message = (
        f"You have requested more instances than this host has room for: fs.inotify.max_user_instances is {LIMIT.read_text().strip()}, "
        f"and a machine takes {EACH}. Take other clusters down, or: sysctl -w fs.inotify.max_user_instances=1024"
    )
    answer = (
        "<Response><Errors><Error><Code>InstanceLimitExceeded</Code>"
        f"<Message>{message}</Message></Error></Errors><RequestID>sandbox</RequestID></Response>"
    ).encode()
    start_response("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
    return [answer]
