"""A stack of its own in the session's cloud: one origin behind a load balancer, and what can befall its runs."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.running_cluster import PROJECT, STATE, Cluster, Done, Machine

PULUMI = STATE / "pulumi"
WITHOUT_SCRIPTS = ("--exclude", "**$command:**", "--exclude-dependents")
"""For an `up` that makes all that AWS has of a stack, and does nothing on its machines."""


class SmallStack:
    """Made like the sandbox's, with its secrets, in a network and under a name of its own."""

    def __init__(self, cluster: Cluster, name: str, network: int) -> None:
        self.name = name
        self.domain = f"{name}.ant-media.test"
        self._cluster = cluster
        settings = yaml.safe_load((PROJECT / "Pulumi.sandbox.yaml").read_text())
        tags = {"project": "ant-media-cluster", "stack": name, "owner": "tests"}
        settings["config"] |= {
            "aws:defaultTags": {"tags": tags},
            "ant-media-cluster:domain": self.domain,
            "ant-media-cluster:network": {"cidr": f"10.{network}.0.0/16", "zones": 2},
            "ant-media-cluster:origins": {"count": 1},
            "ant-media-cluster:edges": {"count": 0},
        }
        own, checkout = PULUMI / f"Pulumi.{name}.yaml", PULUMI / f"{name}.yaml"
        checkout.write_text(yaml.safe_dump(settings))
        shutil.copy(PULUMI / "Pulumi.sandbox.yaml", own)
        cluster.must(
            ".venv/bin/python", "-m", "sandbox.bin.stack_settings", checkout, own, STATE / "acme/roots.pem"
        )
        created = self.pulumi("stack", "init", name)
        assert created.status == 0, created.output

    def pulumi(self, *arguments: str) -> Done:
        return self._cluster.pulumi(*arguments, stack=self.name)

    def up(self, *arguments: str) -> None:
        done = self.pulumi("up", "--yes", "--skip-preview", *arguments)
        assert done.status == 0, done.output

    def recover(self, within: float = 60) -> Done:
        """As `make up` and `make down` begin."""
        return self._cluster.run("sandbox/bin/recover", stack=self.name, timeout=within)

    def recover_and_destroy(self, within: float) -> str:
        """As `make down` does it. Afterwards the state has nothing more to say. Returns what recovery said."""
        recovered = self.recover()
        assert recovered.status == 0, recovered.output
        started = time.monotonic()
        done = self.pulumi("destroy", "--yes", "--skip-preview")
        assert done.status == 0, done.output
        assert time.monotonic() - started < within, done.output
        assert self.state().get("resources", []) == []
        return recovered.stdout

    def state(self) -> dict[str, Any]:
        exported = self.pulumi("stack", "export")
        assert exported.status == 0, exported.output
        state: dict[str, Any] = yaml.safe_load(exported.stdout)["deployment"]
        return state

    def ids(self) -> dict[str, str]:
        """What AWS calls each resource. The load balancer's address and its association share a name: the former's."""
        resources = [one for one in self.state()["resources"] if one["type"].startswith("aws:")]
        return {one["urn"].rpartition("::")[2]: one["id"] for one in reversed(resources)}

    def set_secret(self, key: str, value: str) -> None:
        arguments = ("config", "set", "--secret", "--stack", self.name, f"ant-media-cluster:{key}")
        done = self._cluster.run("sandbox/bin/pulumi", *arguments, input=value, stack=self.name)
        assert done.status == 0, done.output

    def machine(self, name: str) -> Machine:
        entries = self._cluster.machines()
        return entries[f"ant-media-cluster-{self.name}-{name}"]

    def meet(self, when: str, happens: Callable[[int], object], *command: str) -> float:
        """Runs pulumi, and lets something happen to it when it says `when`; returns how long it went on from then.

        What happens is told the process of `sandbox/bin/cloud exec`, which the engine is the child of.
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
            said: list[str] = []
            for line in process.stdout:
                said.append(line)
                if when in line:
                    break
            else:
                raise AssertionError(f"pulumi never said {when}:\n{''.join(said)}")
            started = time.monotonic()
            happens(process.pid)
            process.communicate(timeout=60)
            return time.monotonic() - started


def interrupt(process: int) -> None:
    """Ctrl-C: the terminal's signal goes to the engine, not to its plugins."""
    os.kill(_children(process)[0], signal.SIGINT)


def interrupt_twice(process: int) -> None:
    engine = _children(process)[0]
    os.kill(engine, signal.SIGINT)
    time.sleep(0.2)
    os.kill(engine, signal.SIGINT)


def terminate(process: int) -> None:
    os.kill(_children(process)[0], signal.SIGTERM)


def kill(process: int) -> None:
    """The engine with all its plugins, as a machine does that goes down."""
    for one in _tree(_children(process)[0]):
        os.kill(one, signal.SIGKILL)


def paused(happens: Callable[[], object]) -> Callable[[int], None]:
    """Lets the engine go on when something has happened."""

    def meanwhile(process: int) -> None:
        engine = _children(process)[0]
        os.kill(engine, signal.SIGSTOP)
        happens()
        os.kill(engine, signal.SIGCONT)

    return meanwhile


def _tree(process: int) -> list[int]:
    return [process, *(below for child in _children(process) for below in _tree(child))]


def _children(process: int) -> list[int]:
    threads = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
