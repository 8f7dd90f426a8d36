"""Runs a plugin of the benchmarks, with the arguments of `python -m sandbox.plugins`.

The command provider runs nothing, and the language host measures its program. Each process writes its CPU time when it ends.
"""

import os
import sys
from pathlib import Path

from bench.plugins.sitecustomize import write_at_exit
from sandbox.plugins import __main__ as plugins

plugins.PLUGINS["resource-command"] = "bench.plugins.command"
write_at_exit(sys.argv[1])
if sys.argv[1] == "language-python":
    os.environ["PYTHONPATH"] = ""
    plugins.skip_sdk_import()
    from sandbox.plugins.language.plugin import main

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the program imports sitecustomize from here
    main()
else:
    plugins.main()
