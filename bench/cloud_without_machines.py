"""A cloud for previews and for large stacks: the sandbox's AWS API, engine and providers, but no machines.

Instances exist in moto alone, and every remote script succeeds at once. So the times are those of the engine, the program and
the AWS provider.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

from operations.new_stack.creation import generate_ssh_private_key
from sandbox.cloud import addresses
from tests.project import PROJECT

TICK = os.sysconf("SC_CLK_TCK")
PASSWORDS = ("databasePassword", "statisticsPassword", "panelPassword")
PLUGINS = {
    "language-python-v3.259.0": "language-python",
    "resource-aws-v7.51.1": "resource-aws",
    "resource-command-v1.2.1": "resource-command",
}


def enter_network_without_routes() -> None:
    """Runs this command again in a network of its own, from which nothing leaves. Its processes end with it."""
    if os.environ.get("BENCH_INSIDE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        # SSH at a public address is refused at once, so the program's check of it passes.
        subprocess.run(["ip", "route", "add", "local", addresses.PUBLIC, "dev", "lo"], check=True)
        return
    os.environ["BENCH_INSIDE"] = "yes"
    command = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
    ]
    os.execvp(command[0], [*command, "-m", *_module_and_arguments()])


def _module_and_arguments() -> list[str]:
    module = sys.modules["__main__"].__spec__
    assert module
    return [module.name, *sys.argv[1:]]


@dataclass
class Run:
    """One run of Pulumi."""

    seconds: float
    load: float
    """Load average of the machine at its start. With more than the number of processors, `seconds` is an upper bound."""
    cpu: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by process: engine, language host, program, aws provider, command provider."""
    program: dict[str, Any] = field(default_factory=dict[str, Any])
    """What bench/plugins/sitecustomize.py recorded."""


class CloudWithoutMachines:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self._url = url
        self._probes = folder / "probes"
        home = folder / "home"
        for plugin, name in PLUGINS.items():
            file = home / "plugins" / plugin / f"pulumi-{name}"
            file.parent.mkdir(parents=True)
            file.write_text(
                f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -P -m bench.plugins {name} "$@"\n'
            )
            file.chmod(0o755)
        (folder / "state").mkdir()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "PATH": f"{PROJECT}/.venv/engine:{os.environ['PATH']}",
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "1",
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "BENCH_PROBE": str(self._probes),
        }
        self._environment.pop("SSH_AUTH_SOCK", None)

    def create_stack(self, name: str, program: Path) -> None:
        """Creates a stack with the sandbox's settings."""
        settings = (program / "Pulumi.sandbox.yaml").read_text().replace(addresses.API_URL, self._url)
        config = yaml.safe_load(settings)
        config["config"]["aws:defaultTags"]["tags"]["stack"] = name
        self.config_file(name).write_text(yaml.safe_dump(config))
        self._pulumi(program, "stack", "init", name)
        # It writes a file of its own, which the other commands do not read.
        (program / f"Pulumi.{name}.yaml").unlink(missing_ok=True)
        secrets = {"sshPrivateKey": generate_ssh_private_key(), "sshHostKeySeed": "5eed" * 16}
        secrets |= {name: f"bench-{name.lower()}" for name in PASSWORDS}
        pairs = [
            word
            for key, value in secrets.items()
            for word in ("--secret", f"ant-media-cluster:{key}={value}")
        ]
        self._pulumi(
            program,
            "config",
            "set-all",
            "--stack",
            name,
            "--config-file",
            str(self.config_file(name)),
            *pairs,
        )

    def config_file(self, stack: str) -> Path:
        return self.folder / f"Pulumi.{stack}.yaml"

    def set_counts(self, stack: str, origins: int, edges: int) -> None:
        config = yaml.safe_load(self.config_file(stack).read_text())
        small = {"instanceType": "t3.micro"}
        config["config"]["ant-media-cluster:origins"] = {"count": origins, **small}
        config["config"]["ant-media-cluster:edges"] = {"count": edges, **small}
        self.config_file(stack).write_text(yaml.safe_dump(config))

    def run(self, program: Path, stack: str, *command: str) -> Run:
        """Runs a Pulumi command and measures the CPU time of each of its processes."""
        shutil.rmtree(self._probes, ignore_errors=True)
        self._probes.mkdir()
        load, started = os.getloadavg()[0], time.monotonic()
        log = self.folder / "output"
        with log.open("w") as output, subprocess.Popen(
            ["pulumi", "-C", program, *command, "--stack", stack, "--config-file", self.config_file(stack)],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        ) as process:  # fmt: skip
            engine = 0.0
            watcher = threading.Event()
            while process.poll() is None:
                engine = max(engine, read_cpu(process.pid))
                watcher.wait(0.01)
        if process.returncode != 0:
            raise RuntimeError(f"pulumi {' '.join(command)} failed:\n{log.read_text()[-4000:]}")
        cpu: dict[str, float] = defaultdict(float)
        facts: dict[str, Any] = {}
        for file in self._probes.iterdir():
            probe = json.loads(file.read_text())
            cpu[probe["name"]] += probe["cpu"]
            if probe["name"] == "program":
                facts = probe
        return Run(time.monotonic() - started, load, {"engine": engine, **cpu}, facts)

    def read_state(self, stack: str) -> bytes:
        """Returns the stack's state as it is stored."""
        (file,) = self.folder.glob(f"state/.pulumi/stacks/*/{stack}.json")
        return file.read_bytes()

    def _pulumi(self, program: Path, *command: str) -> None:
        subprocess.run(
            ["pulumi", "-C", program, *command], env=self._environment, check=True, capture_output=True
        )


def read_cpu(process: int) -> float:
    """Returns the CPU seconds of a running process, 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.contextmanager
def cloud_without_machines() -> Generator[CloudWithoutMachines]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        subprocess.Popen(
            [sys.executable, "-m", "sandbox.cloud.api_server"],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as server,
    ):  # fmt: skip
        assert server.stdout
        url = server.stdout.readline().strip()
        sdk: Any = boto3
        session = sdk.Session("test", "test", region_name=addresses.REGION)
        route53 = session.client("route53", endpoint_url=url)
        route53.create_hosted_zone(Name=addresses.ZONE, CallerReference="bench")
        try:
            yield CloudWithoutMachines(Path(folder), url)
        finally:
            server.terminate()
