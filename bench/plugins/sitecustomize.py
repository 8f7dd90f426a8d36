"""Writes the CPU times of a Python process to a file in the folder BENCH_PROBE.

Python imports this module before a program whose PYTHONPATH has this folder. Of a Pulumi program it also records how much CPU
time passed until its imports were complete, and samples afterwards where it is spent: in the program's own code (`own`), in
further imports (`imports`), or in Pulumi's SDK (`sdk`).
"""

import atexit
import json
import os
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

INTERVAL = 0.004
"""Of the samples, in seconds of CPU time: Linux has no finer timer for it."""


def write_at_exit(name: str, facts: dict[str, Any] | None = None) -> None:
    folder, end = os.environ["BENCH_PROBE"], os._exit
    written = facts if facts is not None else {}

    def write() -> None:
        file = Path(folder, f"{os.getpid()}.json")
        file.write_text(json.dumps({"name": name, "cpu": time.process_time(), **written}))

    def write_and_exit(code: int) -> None:
        write()
        end(code)

    atexit.register(write)
    os._exit = write_and_exit


def measure_program() -> None:
    """Records the phases of the program that Pulumi's language host runs in this process."""
    run, install = runpy.run_path, signal.signal
    samples: Counter[str] = Counter()
    facts: dict[str, Any] = {"samples": samples}
    write_at_exit("program", facts)

    def sample(_number: int, frame: FrameType | None) -> None:
        samples[classify(frame, folder)] += 1

    def run_path(path: str, **options: Any) -> object:
        from pulumi.runtime.settings import get_monitor

        nonlocal folder
        folder = str(Path(path).resolve())
        facts["sdk_imported"] = time.process_time()
        monitor: Any = get_monitor()
        wait = monitor.SignalAndWaitForShutdown

        def end(request: Any) -> Any:
            # The engine may kill the program from here on.
            signal.setitimer(signal.ITIMER_PROF, 0)
            facts["done"] = time.process_time()
            Path(os.environ["BENCH_PROBE"], f"{os.getpid()}.json").write_text(
                json.dumps({"name": "program", "cpu": time.process_time(), **facts})
            )
            return wait(request)

        monitor.SignalAndWaitForShutdown = end
        return run(path, **options)

    def handle(number: int, handler: Any) -> object:
        # The first statement of the program after its imports is end_on_interrupt().
        if "imported" not in facts:
            facts["imported"] = time.process_time()
            install(signal.SIGPROF, sample)
            # At its end, Python restores the default action of SIGPROF, which ends the process.
            atexit.register(signal.setitimer, signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return install(number, handler)

    folder = ""
    runpy.run_path, signal.signal = run_path, handle


def classify(frame: FrameType | None, folder: str) -> str:
    """Returns whose code a frame is part of: the innermost caller counts that is the program's, the SDK's or an import."""
    while frame:
        file = frame.f_code.co_filename
        if "importlib" in file:
            return "imports"
        if "/site-packages/pulumi" in file or "/site-packages/grpc" in file:
            return "sdk"
        # The language host, which runs the event loop, may be in the same checkout.
        if file.startswith(folder) and "/.venv/" not in file and "/sandbox/" not in file:
            return "own"
        frame = frame.f_back
    return "sdk"


if any(word.endswith("run_program.py") for word in sys.orig_argv):
    measure_program()
