"""Starts the stand-in plugin named by the first argument: `language`, `aws` or `command`."""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def leave_out_the_sdk() -> None:
    """Opens the way to `pulumi.runtime.proto`, all that a plugin needs, past the SDK that is loaded with it otherwise.

    It takes longer than the rest of a plugin's start, five times in one preview.
    """
    spec = importlib.util.find_spec("pulumi")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    for name in ("pulumi", "pulumi.runtime"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


# Imports are written as seen from the repository's root, for pyright and pytest alike.
sys.path[0] = str(Path(__file__).resolve().parents[2])
leave_out_the_sdk()
import_module(f"sandbox.plugins.{sys.argv.pop(1)}.plugin").main()
