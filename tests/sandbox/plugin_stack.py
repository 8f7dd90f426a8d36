"""A small Pulumi stack of the tests' own: the real engine, the stand-in plugins, state in a temporary folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[2] / "sandbox/plugins"
PROJECT = "name: plugins\nruntime: python\n"
PASSPHRASE = "the tests' passphrase"


class Stack:
    """One program and its stack. `program` is its source, changed at will between runs."""

    def __init__(self, folder: Path, home: Path, project: str = PROJECT) -> None:
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        (folder / "Pulumi.yaml").write_text(project)
        self.environment = {
            "PATH": os.pathsep.join([str(PLUGINS), str(Path(sys.prefix) / "engine"), os.environ["PATH"]]),
            "HOME": str(home),
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "SANDBOX_PYTHON": sys.executable,
        }
        self.run("stack", "init", "test")

    def program(self, source: str) -> "Stack":
        (self.folder / "__main__.py").write_text(source)
        return self

    def run(self, *arguments: str, fails: bool = False, timeout: float = 60) -> str:
        """What pulumi prints, diagnostics included; the outcome must be the one expected."""
        pulumi = shutil.which("pulumi", path=self.environment["PATH"])
        assert pulumi, "the engine is neither on PATH nor in the virtual environment: run sandbox/setup.sh"
        done = subprocess.run(
            [pulumi, "--non-interactive", "--color=never", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def up(self, *arguments: str, fails: bool = False, timeout: float = 60) -> str:
        return self.run("up", "--yes", "--skip-preview", *arguments, fails=fails, timeout=timeout)

    def preview(self, *arguments: str) -> str:
        return self.run("preview", "--diff", *arguments)

    def planned(self) -> dict[str, str]:
        """What a preview would do with each resource, by name."""
        steps: list[dict[str, Any]] = json.loads(self._json("preview", "--json"))["steps"]
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps}

    def _json(self, *arguments: str) -> str:
        """The JSON document in what is printed: the engine's warnings come before it."""
        printed = self.run(*arguments)
        return printed[printed.index("{\n") if "{\n" in printed else printed.index("{") :]

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self._json("stack", "output", "--json"))
        return outputs

    def resources(self) -> dict[str, dict[str, Any]]:
        """The state as it is stored, secrets encrypted."""
        state = json.loads(self._json("stack", "export"))["deployment"].get("resources", [])
        return {resource["urn"].rsplit("::", 1)[-1]: resource for resource in state}
