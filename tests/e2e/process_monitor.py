"""Records command lines and environments of the processes on the sandbox's machines."""

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

MACHINE_DEPTH = 3
"""Depth of a machine's PID namespace: host, sandbox, machine."""


class ProcessMonitor:
    """Scans the processes of all machines repeatedly and collects every distinct value."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._sweeps: dict[str, int] = {}
        """By PID of a machine's process: the sweeps since it started."""
        self._command_lines: dict[str, bytes] = {}
        self._others: set[str] = set()
        self._stopped = threading.Event()

    def sweep(self) -> None:
        pids = {name for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208  (much faster)
        self._others &= pids
        self._others |= {
            pid for pid in pids - self._sweeps.keys() - self._others if _read_depth(pid) < MACHINE_DEPTH
        }
        self._sweeps = {pid: self._sweeps.get(pid, 0) + 1 for pid in pids - self._others}
        for pid in self._command_lines.keys() - self._sweeps.keys():
            del self._command_lines[pid]
        for pid, sweeps in self._sweeps.items():
            # After two seconds, few processes execute another program.
            if sweeps < 100 or sweeps % 50 == 0:
                # A program that another one executes rarely has the same command line.
                command_line = _read(pid, "cmdline")
                if command_line != self._command_lines.get(pid) or sweeps % 10 == 0:
                    self._command_lines[pid] = command_line
                    self.seen |= {command_line, _read(pid, "environ")}

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
    parts: list[bytes] = []
    try:
        descriptor = os.open(f"/proc/{pid}/{file}", os.O_RDONLY)
    except OSError:  # the process has ended
        return b""
    try:
        while part := os.read(descriptor, 1 << 18):
            parts.append(part)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts)
