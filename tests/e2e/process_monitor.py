"""Records command lines and environments of the processes on the sandbox's machines."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MACHINE_DEPTH = 3
"""Depth of a machine's PID namespace: host, sandbox, machine."""


class ProcessMonitor:
    """Scans the processes of all machines repeatedly and collects every distinct value."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.sweeps = 0
        self._depths: dict[str, int] = {}
        self._stopped = threading.Event()

    def sweep(self) -> None:
        pids = {path.name for path in Path("/proc").iterdir() if path.name.isdecimal()}
        self._depths = {pid: self._depths.get(pid) or _read_depth(pid) for pid in pids}
        for pid, depth in self._depths.items():
            if depth >= MACHINE_DEPTH:
                self.seen |= {_read(pid, "cmdline"), _read(pid, "environ")}
        self.sweeps += 1

    def run(self) -> None:
        while not self._stopped.is_set():
            self.sweep()
            time.sleep(0.005)

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def monitoring_processes() -> Generator[ProcessMonitor]:
    monitor = ProcessMonitor()
    thread = threading.Thread(target=monitor.run, daemon=True)
    thread.start()
    try:
        yield monitor
    finally:
        monitor.stop()
        thread.join()


def _read_depth(pid: str) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            return len(line.split()) - 1
    return 0


def _read(pid: str, file: str) -> bytes:
    try:
        return Path("/proc", pid, file).read_bytes()
    except OSError:  # the process has ended
        return b""
