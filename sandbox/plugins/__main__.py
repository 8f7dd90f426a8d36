"""Runs a stand-in plugin: `python -m sandbox.plugins resource-aws`, for example."""

import gc
import importlib.util
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

PLUGINS = {
    "language-python": "sandbox.plugins.language.plugin",
    "resource-aws": "sandbox.plugins.aws.plugin",
    "resource-command": "sandbox.plugins.command.plugin",
}


def skip_sdk_import() -> None:
    """Makes the modules of `pulumi.runtime.proto` importable one by one, without importing the rest of the SDK.

    A plugin needs nothing else of it, and the SDK takes longer to import than the rest of a plugin's start.
    """
    spec = importlib.util.find_spec("pulumi")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    for name in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


def main() -> None:
    # Most objects of a plugin live until it ends.
    gc.set_threshold(100_000)
    # The launcher sets it for this process; programs and commands that a plugin starts must not inherit it.
    os.environ.pop("PYTHONPATH", None)
    skip_sdk_import()
    import_module(PLUGINS[sys.argv[1]]).main()


if __name__ == "__main__":
    main()
