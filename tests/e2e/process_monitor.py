"""Records command lines and environments of the processes on the sandbox's machines."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

MACHINE_DEPTH = 3
"""Depth of a machine's PID namespace: host, sandbox, machine."""


class ProcessMonitor:
    """Scans the processes of all machines repeatedly and collects every distinct value."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._depths: dict[str, int] = {}
        self._stopped = threading.Event()

    def sweep(self) -> None:
        pids = {path.name for path in Path("/proc").iterdir() if path.name.isdecimal()}
        self._depths = {pid: self._depths.get(pid) or _read_depth(pid) for pid in pids}
        for pid, depth in self._depths.items():
            if depth >= MACHINE_DEPTH:
                self.seen |= {_read(pid, "cmdline"), _read(pid, "environ")}

    def has_seen(self, *texts: str) -> bool:
        """True if a command line or an environment contained all of the texts."""
        return any(all(text.encode() in seen for text in texts) for seen in tuple(self.seen))

    @contextmanager
    def running(self) -> Generator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            self.sweep()


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
