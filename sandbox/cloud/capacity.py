"""Limits the number of machines by the inotify instances that this host has left."""

import contextlib
import os
import time
from pathlib import Path

from sandbox.cloud.process_tree import open_inotify_instance

INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES_PER_MACHINE = 5
"""Used by systemd and its services. Other resources of a host run out later."""
BOOT_SECONDS = 15
"""After this time, a machine has opened all its inotify instances."""


class Capacity:
    """Checks for free inotify instances by opening them for a moment, since other processes use them too."""

    def __init__(self) -> None:
        self._started: list[float] = []

    def reserve(self) -> bool:
        """Reserves room for one machine; returns False if there is none."""
        now = time.monotonic()
        self._started = [start for start in self._started if now - start < BOOT_SECONDS]
        needed = INOTIFY_INSTANCES_PER_MACHINE * (len(self._started) + 1)
        with contextlib.ExitStack() as opened:
            try:
                for _ in range(needed):
                    opened.callback(os.close, open_inotify_instance())
            except OSError:
                return False
        self._started.append(now)
        return True


def describe_limit() -> str:
    """Returns the message of RunInstances' error InstanceLimitExceeded when this host has no room."""
    return (
        f"You have requested more instances than this host has room for: fs.inotify.max_user_instances is {INOTIFY_LIMIT.read_text().strip()}, "
        f"and a machine needs {INOTIFY_INSTANCES_PER_MACHINE}. Delete other clusters, or run: sysctl -w fs.inotify.max_user_instances=1024"
    )
