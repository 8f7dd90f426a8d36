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
        self._sweeps: dict[str, int] = {}
        """By PID of a machine's process: the sweeps since it started."""
        self._others: set[str] = set()
        self._stopped = threading.Event()

    def sweep(self) -> None:
        pids = {path.name for path in Path("/proc").iterdir() if path.name.isdecimal()}
        self._others &= pids
        self._others |= {
            pid for pid in pids - self._sweeps.keys() - self._others if _read_depth(pid) < MACHINE_DEPTH
        }
        self._sweeps = {pid: self._sweeps.get(pid, 0) + 1 for pid in pids - self._others}
        for pid, sweeps in self._sweeps.items():
            # After two seconds, few processes execute another program.
            if sweeps < 100 or sweeps % 50 == 0:
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
