"""Reports the progress of a run whose output appears only at its end, and cleans up when a run is terminated."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest


class Progress:
    """Writes a line when the last test of a file has ended."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._outcomes: Counter[str] = Counter()
        self._started = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.outcome] += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        result = yield
        if nextitem is None or nextitem.path != item.path:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in self._outcomes.items())
            seconds = time.monotonic() - self._started
            file = item.path.relative_to(item.config.rootpath)
            os.write(self._descriptor, f"    {file}: {counts} in {seconds:.0f} s\n".encode())
            self._outcomes.clear()
            self._started = time.monotonic()
        return result


def pytest_configure(config: pytest.Config) -> None:
    # Go's programs, such as the Pulumi engine, then collect garbage less often and take a fifth less CPU time.
    os.environ.setdefault("GOGC", "400")
    # On SIGTERM, as on SIGINT, pytest removes clusters and local clouds before it ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if descriptor := os.environ.get("PROGRESS"):
        config.pluginmanager.register(Progress(int(descriptor)), "progress")
