"""Pulumi's command line."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, which is the Pulumi project."""


def run_pulumi(*arguments: str, stdin: str | None = None, folder: Path = ROOT) -> str:
    """Runs Pulumi in a project's folder and returns its standard output. Prints its standard error when it ends.

    Raises `CalledProcessError` when Pulumi fails.
    """
    run = subprocess.run(["pulumi", *arguments], cwd=folder, input=stdin, capture_output=True, text=True)
    sys.stderr.write(run.stderr)
    run.check_returncode()
    return run.stdout


def ignore_interrupts() -> None:
    """Keeps this process running on an interrupt, which the engine that it starts receives too."""
    # Unlike `SIG_IGN`, a handler is not inherited by the engine.
    signal.signal(signal.SIGINT, lambda number, frame: None)
