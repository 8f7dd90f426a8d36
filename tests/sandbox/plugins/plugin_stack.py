"""A small Pulumi stack: the real engine, the stand-in plugins, state in a temporary folder."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.project import PROJECT

LANGUAGE_HOST = f"language-python-v{version('pulumi')}"
PROJECT_FILE = "name: plugins\nruntime: python\n"
# The engine interrupts the program when an update fails. With this line at its start it ends without a traceback.
END_ON_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
PASSPHRASE = "the tests' passphrase"


def install_stand_ins(home: Path) -> None:
    """Installs the three stand-in plugins into a PULUMI_HOME, without the engine's logs as in the sandbox."""
    (home / "logs").touch()
    plugins = [f"resource-{name}-v{version(f'pulumi_{name}')}" for name in ("aws", "command")]
    subprocess.run([PROJECT / "sandbox/plugins/install", home, LANGUAGE_HOST, *plugins], check=True)


class Stack:
    """A stack and its program, whose source may change between runs."""

    def __init__(self, folder: Path, home: Path, project: str = PROJECT_FILE) -> None:
        self.folder = folder
        (folder / "state").mkdir(parents=True)
        (folder / "Pulumi.yaml").write_text(project)
        self.environment = {
            # On PATH the stand-in takes precedence over the language host of an official release.
            "PATH": os.pathsep.join(
                [str(home / "plugins" / LANGUAGE_HOST), str(Path(sys.prefix) / "engine"), os.environ["PATH"]]
            ),
            "HOME": str(home),
            "GOGC": os.environ["GOGC"],
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        self._create(home / "new-stack")
        self.salt = (folder / "Pulumi.test.yaml").read_text().split()[1]

    def _create(self, copy: Path) -> None:
        """Creates the stack; after the first one by copying that, as `pulumi stack init` takes as long as many a test."""
        home = Path(self.environment["PULUMI_HOME"])
        if not copy.exists():
            self.run("stack", "init", "test")
            shutil.copytree(self.folder / "state", copy / "state")
            shutil.copy(self.folder / "Pulumi.test.yaml", copy)
            return
        shutil.copytree(copy / "state", self.folder / "state", dirs_exist_ok=True)
        shutil.copy(copy / "Pulumi.test.yaml", self.folder)
        # As `pulumi stack select` writes it (projectWorkspace.settingsPath).
        project = hashlib.sha1(str(self.folder / "Pulumi.yaml").encode(), usedforsecurity=False).hexdigest()
        selected = {self.environment["PULUMI_BACKEND_URL"]: "organization/plugins/test"}
        (home / f"workspaces/plugins-{project}-workspace.json").write_text(json.dumps({"stacks": selected}))

    def program(self, source: str) -> "Stack":
        (self.folder / "__main__.py").write_text(source)
        return self

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Writes the settings into the stack's file, which is faster than `pulumi config set` for each."""
        (self.folder / "Pulumi.test.yaml").write_text(
            json.dumps({"encryptionsalt": self.salt, "config": dict(settings)})
        )

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Runs pulumi and returns its output and diagnostics. `fails` is the expected outcome."""
        done = self._run_command([], arguments, timeout=600)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def hangs(self, *arguments: str) -> bool:
        """Returns whether pulumi still runs after some seconds, and ends it with its plugins: they share a PID namespace."""
        try:
            self._run_command(["unshare", "--pid", "--fork", "--kill-child"], arguments, timeout=8)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _run_command(
        self, wrapper: Sequence[str], arguments: Sequence[str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        pulumi = shutil.which("pulumi", path=self.environment["PATH"])
        assert pulumi, "pulumi is not installed: run sandbox/bin/setup"
        return subprocess.run(
            [*wrapper, pulumi, "--non-interactive", "--color=never", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *arguments: str, fails: bool = False) -> str:
        return self.run("up", "--yes", "--skip-preview", *arguments, fails=fails)

    def refresh(self, *arguments: str) -> str:
        return self.run("refresh", "--yes", "--skip-preview", *arguments)

    def destroy(self, *, fails: bool = False) -> str:
        return self.run("destroy", "--yes", "--skip-preview", fails=fails)

    def preview(self, *arguments: str) -> str:
        return self.run("preview", "--diff", *arguments)

    def preview_operations(self) -> dict[str, str]:
        """Returns the operation of a preview on each resource, by the resource's name."""
        printed = self.run("preview", "--json")  # starts with warnings of the engine
        steps: list[dict[str, Any]] = json.loads(printed[printed.index("{\n") :])["steps"]
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps}

    def outputs(self) -> dict[str, Any]:
        """Returns the stack's outputs."""
        outputs: dict[str, Any] = self.resources()["plugins-test"]["outputs"]
        return outputs

    def resources(self) -> dict[str, dict[str, Any]]:
        """Returns the resources in the state by name, with encrypted secrets."""
        (file,) = self.folder.glob("state/.pulumi/stacks/plugins/test.json")
        deployment = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        return {resource["urn"].rsplit("::", 1)[-1]: resource for resource in deployment.get("resources", [])}
