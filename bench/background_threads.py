"""Threads that run for the time of a `with` block."""

import threading
from typing import Self


class BackgroundThreads:
    """Base class of what runs beside a measurement. Its threads end when `_stopped` is set."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
