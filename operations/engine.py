"""Pulumi's command line, on this project."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pulumi(*arguments: str, stdin: str | None = None) -> str:
    """Pulumi's standard output. What it says on standard error is the user's to read."""
    return subprocess.run(
        ["pulumi", *arguments], cwd=ROOT, input=stdin, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
