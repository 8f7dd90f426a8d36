"""Sees what everybody on a machine may see of its processes: their command lines, and their environments."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

IN_MACHINE = 3
"""Depth of a machine's process id namespace: the host's, the sandbox's, the machine's."""


class ProcessWatcher:
    """Looks at the processes of all machines, over and over, and keeps each different thing that it saw."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.sweeps = 0
        self._depths: dict[str, int] = {}
        self._ended = threading.Event()

    def look(self) -> None:
        there = {path.name for path in Path("/proc").iterdir() if path.name.isdecimal()}
        self._depths = {pid: self._depths.get(pid) or _depth(pid) for pid in there}
        for pid, depth in self._depths.items():
            if depth >= IN_MACHINE:
                self.seen |= {_read(pid, "cmdline"), _read(pid, "environ")}
        self.sweeps += 1

    def run(self) -> None:
        while not self._ended.is_set():
            self.look()
            time.sleep(0.005)  # something is to happen in between

    def end(self) -> None:
        self._ended.set()


@contextmanager
def watching() -> Generator[ProcessWatcher]:
    watcher = ProcessWatcher()
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    try:
        yield watcher
    finally:
        watcher.end()
        thread.join()


def _depth(pid: str) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            return len(line.split()) - 1
    return 0


def _read(pid: str, file: str) -> bytes:
    try:
        return Path("/proc", pid, file).read_bytes()
    except OSError:  # it has ended
        return b""
