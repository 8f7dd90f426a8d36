"""The load of the machine, above which the server refuses publishers, as the original's StatsCollector measures it."""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("stand-in")

# Of this machine alone: /proc/stat and /proc/meminfo show the whole host.
_CPU = Path("/sys/fs/cgroup/cpu.stat")
_MEMORY = Path("/sys/fs/cgroup/memory.stat")
# A percentage in one of these files takes the place of the measured load: tests write them.
_CPU_LOAD, _MEMORY_LOAD = Path("/run/antmedia/cpu-load"), Path("/run/antmedia/memory-load")


def _read_limit(text: str) -> int:
    """Returns a limit as StatsCollector's setters do: 10 to 100."""
    return min(max(int(text), 10), 100)


class Resources:
    """The loads in percent, and their limits in red5.properties."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self.cpu_limit = _read_limit(properties["server.cpu_limit"])
        self.memory_limit = _read_limit(properties.get("server.memory_limit_percentage", "75"))
        self._period = int(properties.get("server.cpu_measurement_period_ms", "1000")) / 1000
        self._loads = deque[int](maxlen=int(properties.get("server.cpu_measurement_window_size", "5")))

    async def measure(self) -> None:
        """Measures the CPU load in every period."""
        used, at = _read_cpu_seconds(), time.monotonic()
        while True:
            await asyncio.sleep(self._period)
            before, since = used, at
            used, at = _read_cpu_seconds(), time.monotonic()
            self._loads.append(int((used - before) / (at - since) / (os.cpu_count() or 1) * 100))

    @property
    def cpu_load(self) -> int:
        """The average of the last measurements."""
        if _CPU_LOAD.exists():
            return int(_CPU_LOAD.read_text())
        return sum(self._loads) // len(self._loads) if self._loads else 0

    @property
    def memory(self) -> dict[str, int]:
        """Total and available bytes."""
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if _MEMORY_LOAD.exists():
            return {
                "totalMemory": total,
                "availableMemory": total * (100 - int(_MEMORY_LOAD.read_text())) // 100,
            }
        used = sum(value for name, value in _read_statistics(_MEMORY).items() if name in ("anon", "kernel"))
        return {"totalMemory": total, "availableMemory": total - used}

    def are_enough(self) -> bool:
        """True below both limits. Else the log says which one is reached."""
        cpu, memory = self.cpu_load, self.memory
        if cpu >= self.cpu_limit:
            log.error("Not enough resource. Due to high cpu load: %d cpu limit: %d", cpu, self.cpu_limit)
            return False
        load = int((memory["totalMemory"] - memory["availableMemory"]) / memory["totalMemory"] * 100)
        if load >= self.memory_limit:
            log.error(
                "Not enough resource. Due to memory limit. Memory usage should be less than %%%d but it is %d",
                self.memory_limit,
                load,
            )
            return False
        return True


def _read_cpu_seconds() -> float:
    return _read_statistics(_CPU).get("usage_usec", 0) / 1_000_000


def _read_statistics(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text().splitlines()) if file.exists() else ()
    return {name: int(value) for name, value in pairs}
