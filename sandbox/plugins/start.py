"""Starts the stand-in plugin named by the first argument: `language`, `aws` or `command`."""

import sys
from importlib import import_module
from pathlib import Path

# Imports are written as seen from the repository's root, for mypy and pytest alike.
sys.path[0] = str(Path(__file__).resolve().parents[2])
import_module(f"sandbox.plugins.{sys.argv.pop(1)}.plugin").main()
