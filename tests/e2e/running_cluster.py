"""The cluster under test, and the ways to work on it: the commands that a user has."""

import csv
import fcntl
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import boto3

from sandbox.cloud import addresses
from tests.project import PROJECT

STATE = Path("/var/lib/ant-media-sandbox-e2e")
LOOPBACK = "127.77.0.2"
DOMAIN = addresses.ENTRANCE
STACK = "ant-media-cluster-sandbox"
SCRIPTS = "/usr/local/lib/ant-media-cluster"
"""Where the program installs its scripts on each machine."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@dataclass(frozen=True)
class Machine:
    """An instance that has not been terminated."""

    name: str
    id: str
    state: str
    private: str
    public: str
    nspawn: int
    """Its process on the sandbox's process tree; 0 while it is off."""

    @property
    def hostname(self) -> str:
        return f"ip-{self.private.replace('.', '-')}"


@contextmanager
def alone() -> Generator[None]:
    """Two runs of these tests would take each other's cluster away."""
    path = STATE.with_suffix(".lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"other end-to-end tests are running: {path} is locked") from None
        yield
        path.unlink()


class Cluster:
    """One sandbox of the tests' own, at its own state folder and loopback address."""

    environment: ClassVar = {
        **os.environ,
        "SANDBOX_STATE": str(STATE),
        "SANDBOX_ADDRESS": LOOPBACK,
        "PULUMI_STACK": "sandbox",
        "AMS_ZIP": "",
    }

    def run(
        self, *command: str | Path, input: str | None = None, timeout: float = 60, stack: str = "sandbox"
    ) -> Done:
        """Runs a command in the checkout, as a user of this sandbox would."""
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env={**self.environment, "PULUMI_STACK": stack},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *command: str | Path, input: str | None = None, timeout: float = 60) -> str:
        """What a command prints that has to succeed."""
        done = self.run(*command, input=input, timeout=timeout)
        assert done.status == 0, done.output
        return done.stdout

    def bring_up(self, *arguments: str) -> Done:
        return self.run("sandbox/bin/up", *arguments, timeout=400)

    def take_away(self) -> Done:
        return self.run("sandbox/bin/down", timeout=120)

    def pulumi(self, *arguments: str, stack: str = "sandbox") -> Done:
        return self.run("sandbox/bin/pulumi", *arguments, timeout=300, stack=stack)

    def update(self, *arguments: str) -> str:
        """`pulumi up` that has to succeed."""
        done = self.pulumi("up", "--yes", "--skip-preview", *arguments)
        assert done.status == 0, done.output
        return done.output

    def set(self, key: str, value: object) -> None:
        self.must("sandbox/bin/pulumi", "config", "set", "--path", f"ant-media-cluster:{key}", str(value))

    def setting(self, key: str) -> str:
        return self.must("sandbox/bin/pulumi", "config", "get", f"ant-media-cluster:{key}").strip()

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self.must("sandbox/bin/pulumi", "stack", "output", "--json"))
        return outputs

    def as_operator(self, *command: str | Path) -> list[str]:
        """A command line that runs another as the operator, on the sandbox's internet."""
        return ["sandbox/bin/cloud", "exec", "--", *map(str, command)]

    def shell(self, machine: str, *command: str, input: str | None = None) -> Done:
        return self.run("sandbox/bin/cloud", "shell", machine, *command, input=input)

    def at_network_of(self, machine: Machine, *command: str | Path) -> list[str]:
        """A command line that runs another, with this host's files, at a machine's network interface."""
        leader = f"$(cat /proc/{machine.nspawn}/task/{machine.nspawn}/children)"
        enter = f'exec nsenter --target={leader} --net "$@"'
        return self.as_operator("bash", "-c", enter, "at-network", *command)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.must("sandbox/bin/cloud", "status", "--json"))
        return status

    def machines(self) -> dict[str, Machine]:
        """By the name that HAProxy has for them."""
        found = [
            Machine(
                name=entry["name"].removeprefix(f"{STACK}-"),
                id=entry["instance_id"],
                state=entry["state"],
                private=entry["private_address"],
                public=entry["public_address"],
                nspawn=entry["process"] or 0,
            )
            for entry in self.status()["machines"]
        ]
        return {machine.name: machine for machine in found}

    def servers(self) -> dict[str, dict[str, str]]:
        """HAProxy's statistics of each server, by `backend/server`."""
        done = self.shell(
            "load-balancer", "socat", "-", "UNIX-CONNECT:/run/haproxy/admin.sock", input="show stat -1 4 -1\n"
        )
        assert done.status == 0, done.output
        rows = csv.DictReader(io.StringIO(done.stdout.removeprefix("# ")))
        return {f"{row['pxname']}/{row['svname']}": row for row in rows}

    def aws(self, service: str) -> Any:
        """One of AWS's APIs. Its calls must be made on the sandbox's internet."""
        session = boto3.Session("test", "test", region_name=addresses.REGION)
        return session.client(service, endpoint_url=addresses.API_URL)


@contextmanager
def running(command: Sequence[str | Path]) -> Generator[subprocess.Popen[str]]:
    """A command that goes on while something else is done, and ends after that at the latest."""
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=Cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def eventually(condition: Callable[[], object], within: float, every: float = 0.3) -> None:
    """Waits until a condition holds; one that raises an AssertionError or OSError does not hold yet."""
    deadline = time.monotonic() + within
    while True:
        try:
            if condition():
                return
            problem = None
        except (AssertionError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about within {within:.0f} s") from problem
        time.sleep(every)
