"""Pulumi's command line."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, which is the Pulumi project."""


def run_pulumi(*arguments: str, stdin: str | None = None, folder: Path = ROOT) -> str:
    """Runs Pulumi in a project's folder and returns its standard output. Its standard error is passed through.

    Raises `CalledProcessError` when Pulumi fails.
    """
    return subprocess.run(
        ["pulumi", *arguments], cwd=folder, input=stdin, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
