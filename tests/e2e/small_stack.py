"""A second stack in the sandbox, with one origin behind a load balancer, and ways to interrupt its Pulumi runs."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.running_cluster import SETTINGS_FILE, SETTINGS_FOLDER, Cluster, CommandResult, Machine
from tests.project import PROJECT

SANDBOX_SETTINGS = PROJECT / "Pulumi.sandbox.yaml"
EXCLUDE_SCRIPTS = ("--exclude", "**$command:**", "--exclude-dependents")
"""Options of an `up` that creates the AWS resources but runs no scripts on the machines."""


def start_cloud(cluster: Cluster, **settings: object) -> CommandResult:
    """Prepares `pulumi up` as `make up` does. `settings` replace those of the stack `sandbox`."""
    start = cluster.run("sandbox/bin/cloud", "start")
    start.check()
    SETTINGS_FOLDER.mkdir()
    shutil.copy(PROJECT / "Pulumi.yaml", SETTINGS_FOLDER)
    # When this file changes, sandbox/bin/pulumi merges its settings again.
    shutil.copy(SANDBOX_SETTINGS, SETTINGS_FOLDER / ".merged.sandbox.yaml")
    cluster.merge_settings("sandbox", replace_settings(settings)).check()
    path = f"PATH={PROJECT}/sandbox/bin:{os.environ['PATH']}"
    cluster.run("env", path, ".venv/bin/python", "-m", "operations.new_stack", "sandbox").check()
    return start


def replace_settings(settings: Mapping[str, object], **pulumi: object) -> str:
    """Returns the sandbox's settings as YAML, with `settings` for the program and `pulumi` for the AWS provider."""
    file = yaml.safe_load(SANDBOX_SETTINGS.read_text())
    file["config"] |= {f"ant-media-cluster:{key}": value for key, value in settings.items()}
    file["config"] |= {f"aws:{key}": value for key, value in pulumi.items()}
    return yaml.safe_dump(file)


class SmallStack:
    """A stack with the sandbox's settings and secrets, but its own network and domain."""

    def __init__(self, cluster: Cluster, name: str, octet: int, **settings: object) -> None:
        self.name = name
        self.domain = f"{name}.ant-media.test"
        self._cluster = cluster
        self._settings: dict[str, object] = {
            "domain": self.domain,
            "network": {"cidr": f"10.{octet}.0.0/16", "zones": 2},
            "origins": {"count": 1},
            "edges": {"count": 0},
            **settings,
        }
        # The settings file of the stack `sandbox` has the secrets.
        shutil.copy(SETTINGS_FILE, SETTINGS_FOLDER / f"Pulumi.{name}.yaml")
        self.set_settings()
        self.pulumi("stack", "init", name).check()

    def set_settings(self, **settings: object) -> None:
        """Changes settings in the stack's file, as an editor does."""
        self._settings |= settings
        tags = {"project": "ant-media-cluster", "stack": self.name, "owner": "tests"}
        text = replace_settings(self._settings, defaultTags={"tags": tags})
        self._cluster.merge_settings(self.name, text).check()

    def pulumi(self, *arguments: str) -> CommandResult:
        return self._cluster.pulumi(*arguments, stack=self.name)

    def up(self, *arguments: str) -> None:
        self.pulumi("up", "--yes", "--skip-preview", *arguments).check()

    def recover(self) -> CommandResult:
        """Runs the first step of `make up` and `make down`."""
        return self._cluster.run("sandbox/bin/recover", stack=self.name)

    def recover_and_destroy(self) -> str:
        """Recovers and destroys the stack as `make down` does, and returns the output of the recovery.

        The destroy must not try to connect to a machine. It must end within five minutes and leave an empty state.
        """
        recovery = self.recover().check()
        started = time.monotonic()
        output = self.pulumi("destroy", "--yes", "--skip-preview").check()
        assert time.monotonic() - started < 300, output
        assert "Dial " not in output
        assert self.list_resources() == []
        return recovery

    def list_resources(self) -> list[dict[str, Any]]:
        """Returns the resources in the stack's state."""
        return self._cluster.list_state_resources(self.name)

    def get_physical_ids(self) -> dict[str, str]:
        """Returns AWS's ID of each resource by its Pulumi name.

        The load balancer's address and its association share a name, which maps to the address.
        """
        resources = [resource for resource in self.list_resources() if resource["type"].startswith("aws:")]
        return {resource["urn"].rpartition("::")[2]: resource["id"] for resource in reversed(resources)}

    def set_secret(self, key: str, value: str) -> None:
        arguments = ("config", "set", "--secret", "--stack", self.name, f"ant-media-cluster:{key}")
        self._cluster.pulumi(*arguments, input=value, stack=self.name).check()

    def machine(self, name: str) -> Machine:
        return self._cluster.list_machines()[f"ant-media-cluster-{self.name}-{name}"]

    def run_until(self, message: str, interruption: Callable[[int], object], *command: str) -> str:
        """Runs pulumi until it prints a message, then interrupts it. Returns what it printed until then.

        `interruption` receives the PID of `sandbox/bin/cloud exec`, the parent of the engine. The run must then end
        within five minutes.
        """
        with subprocess.Popen(
            ["sandbox/bin/pulumi", *command, "--yes", "--skip-preview"],
            cwd=PROJECT,
            env={**Cluster.environment, "PULUMI_STACK": self.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            output: list[str] = []
            for line in process.stdout:
                output.append(line)
                if message in line:
                    break
            else:
                raise AssertionError(f"pulumi never printed {message}:\n{''.join(output)}")
            interruption(process.pid)
            process.communicate(timeout=300)
        return "".join(output)


def interrupt(process: int) -> None:
    """Sends SIGINT to the engine but not to its plugins, as Ctrl-C does."""
    os.kill(_list_children(process)[0], signal.SIGINT)


def interrupt_twice(process: int) -> None:
    engine = _list_children(process)[0]
    os.kill(engine, signal.SIGINT)
    time.sleep(0.2)
    with suppress(ProcessLookupError):  # it may have ended already
        os.kill(engine, signal.SIGINT)


def terminate(process: int) -> None:
    os.kill(_list_children(process)[0], signal.SIGTERM)


def kill(process: int) -> None:
    """Kills the engine and all its plugins, as the loss of their machine would."""
    for member in _list_tree(_list_children(process)[0]):
        with suppress(ProcessLookupError):  # its parent is dead, so it may have ended by itself
            os.kill(member, signal.SIGKILL)


def while_paused(action: Callable[[], object]) -> Callable[[int], None]:
    """Returns an interruption that pauses the engine while an action runs."""

    def pause(process: int) -> None:
        engine = _list_children(process)[0]
        os.kill(engine, signal.SIGSTOP)
        action()
        os.kill(engine, signal.SIGCONT)

    return pause


def _list_tree(process: int) -> list[int]:
    return [process, *(descendant for child in _list_children(process) for descendant in _list_tree(child))]


def _list_children(process: int) -> list[int]:
    children: list[int] = []
    # Threads and processes end meanwhile.
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, (thread / "children").read_text().split())
    return children
