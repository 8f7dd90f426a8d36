"""A small Pulumi stack of the tests' own: the real engine, the stand-in plugins, state in a temporary folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.project import PROJECT

PLUGINS = PROJECT / "sandbox/plugins"
PROJECT_FILE = "name: plugins\nruntime: python\n"
PASSPHRASE = "the tests' passphrase"


class Stack:
    """One program and its stack. `program` is its source, changed at will between runs."""

    def __init__(self, folder: Path, home: Path, project: str = PROJECT_FILE) -> None:
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
        self.salt = (folder / "Pulumi.test.yaml").read_text().split()[1]

    def program(self, source: str) -> "Stack":
        (self.folder / "__main__.py").write_text(source)
        return self

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Writes the stack's file, in which `config set` would take a run of pulumi for each setting."""
        (self.folder / "Pulumi.test.yaml").write_text(
            json.dumps({"encryptionsalt": self.salt, "config": dict(settings)})
        )

    def run(self, *arguments: str, fails: bool = False, timeout: float = 60) -> str:
        """What pulumi prints, diagnostics included; the outcome must be the one expected."""
        pulumi = shutil.which("pulumi", path=self.environment["PATH"])
        assert pulumi, "the engine is neither on PATH nor in the virtual environment: run sandbox/bin/setup"
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
        printed = self.run("preview", "--json")  # the engine's warnings come before the document
        steps: list[dict[str, Any]] = json.loads(printed[printed.index("{\n") :])["steps"]
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps}

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = self.resources()["plugins-test"]["outputs"]
        return outputs

    def resources(self) -> dict[str, dict[str, Any]]:
        """The state as it is stored, secrets encrypted."""
        (file,) = self.folder.glob("state/.pulumi/stacks/plugins/test.json")
        deployment = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        return {resource["urn"].rsplit("::", 1)[-1]: resource for resource in deployment.get("resources", [])}
