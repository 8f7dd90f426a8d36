"""The cluster under test and the user's commands that operate it."""

import csv
import fcntl
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import boto3
import yaml

from cluster.machine_scripts import INSTALLED_SCRIPTS
from sandbox.cloud import addresses
from tests.project import PROJECT

# A second run beside the first needs E2E_STATE and E2E_ADDRESS. SANDBOX_STATE may hold a cluster that is in use.
STATE = Path(os.environ.get("E2E_STATE", "/var/lib/ant-media-sandbox-e2e"))
SETTINGS_FOLDER = STATE / "pulumi"
SETTINGS_FILE = SETTINGS_FOLDER / "Pulumi.sandbox.yaml"
CA_FILE = STATE / "operator/ca-certificates.crt"
LOOPBACK = os.environ.get("E2E_ADDRESS", "127.77.0.2")
DOMAIN = addresses.DOMAIN
STACK = "ant-media-cluster-sandbox"
PATIENCE = 600
"""Seconds after which a command or a condition has failed. No test depends on the speed of the machine."""
"""Folder of the program's scripts on each machine."""


ENTER_MACHINE = """\
read -r machine others </proc/$0/task/$0/children
exec nsenter --target="$machine" --all --root --wd \\
  env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb "$@"
"""


@dataclass(frozen=True)
class CommandResult:
    exit_code: int
    """As in a shell: 128 and the number of the signal that ended the command."""
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def check(self) -> str:
        """Returns the standard output; fails unless the command succeeded."""
        assert self.exit_code == 0, self.output
        return self.stdout


@dataclass(frozen=True)
class Machine:
    """An instance that is not terminated."""

    name: str
    id: str
    state: str
    private_address: str
    public_address: str
    nspawn_pid: int
    """PID of its systemd-nspawn process in the sandbox; 0 while the machine is stopped."""

    @property
    def hostname(self) -> str:
        return f"ip-{self.private_address.replace('.', '-')}"

    @property
    def is_media_node(self) -> bool:
        return self.name.startswith(("origin", "edge"))


@contextmanager
def exclusive_run() -> Generator[None]:
    """Locks out a second run of these tests, which would tear down this run's cluster."""
    path = STATE.with_suffix(".lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"other end-to-end tests are running: {path} is locked") from None
        yield
        path.unlink()


@contextmanager
def restored_settings() -> Generator[None]:
    """Restores the stack's settings file afterwards."""
    before = SETTINGS_FILE.read_text()
    yield
    SETTINGS_FILE.write_text(before)


def get_sandbox_init() -> int:
    """Returns the host PID of the sandbox's init process."""
    return int((STATE / "pid").read_text().split()[1])


class Cluster:
    """A sandbox with the tests' own state folder and loopback address."""

    environment: ClassVar = {
        # Under `make test`, make's own variables would reach the commands, which print warnings about them.
        **{
            name: value
            for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        },
        "SANDBOX_STATE": str(STATE),
        "SANDBOX_ADDRESS": LOOPBACK,
        "PULUMI_STACK": "sandbox",
        "AMS_ZIP": "",
    }

    def run(self, *command: str | Path, input: str | None = None, stack: str = "sandbox") -> CommandResult:
        """Runs a command in the checkout with the environment of this sandbox."""
        completed = subprocess.run(
            command,
            cwd=PROJECT,
            env={**self.environment, "PULUMI_STACK": stack},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
        code = completed.returncode
        return CommandResult(code if code >= 0 else 128 - code, completed.stdout, completed.stderr)

    def check_output(self, *command: str | Path, input: str | None = None) -> str:
        """Returns the standard output of a command that must succeed."""
        return self.run(*command, input=input).check()

    def bring_up(self, *arguments: str) -> CommandResult:
        return self.run("sandbox/bin/up", *arguments)

    def merge_settings(self, stack: str, settings: str) -> CommandResult:
        """Writes settings to a stack's file in the state folder, as `make up` does."""
        file, acme_root = SETTINGS_FOLDER / f"Pulumi.{stack}.yaml", STATE / "acme/roots.pem"
        merge = (".venv/bin/python", "-m", "operations.stack_file", "merge", "/dev/stdin", file)
        return self.run(*merge, "--acme-root", acme_root, input=settings)

    def tear_down(self) -> CommandResult:
        return self.run("sandbox/bin/down")

    def pulumi(self, *arguments: str, input: str | None = None, stack: str = "sandbox") -> CommandResult:
        return self.run("sandbox/bin/pulumi", *arguments, input=input, stack=stack)

    def update(self, *arguments: str) -> str:
        """Runs `pulumi up`, which must succeed, and returns its output."""
        result = self.pulumi("up", "--yes", "--skip-preview", *arguments)
        result.check()
        return result.output

    def refresh(self) -> str:
        return self.pulumi("refresh", "--yes", "--skip-preview").check()

    # These read and write the files of Pulumi, whose commands take half a second of CPU time each. Tests of the commands run them.

    def set_config(self, path: str, value: object) -> None:
        """Sets a value in the stack's settings file, as `pulumi config set --path` does: `acme.names[0]`."""
        settings = yaml.safe_load(SETTINGS_FILE.read_text())
        first, *inner = re.findall(r"[^.[\]]+", path)
        text, parent, key = str(value), settings["config"], f"ant-media-cluster:{first}"
        for step in inner:
            parent = parent.setdefault(key, [] if step.isdecimal() else {})
            key = step
        value = json.loads(text) if inner and re.fullmatch(r"true|false|0|[1-9]\d*", text) else text
        if isinstance(parent, list):
            parent[int(key) : int(key) + 1] = [value]
        else:
            parent[key] = value
        SETTINGS_FILE.write_text(yaml.safe_dump(settings, sort_keys=False))

    def get_config(self, key: str) -> str:
        return self.pulumi("config", "get", f"ant-media-cluster:{key}").check().strip()

    def get_outputs(self) -> dict[str, Any]:
        """Returns the stack's outputs. A secret is encrypted."""
        (stack,) = (
            resource for resource in self.list_state_resources() if resource["type"] == "pulumi:pulumi:Stack"
        )
        outputs: dict[str, Any] = stack["outputs"]
        return outputs

    def list_state_resources(self, stack: str = "sandbox") -> list[dict[str, Any]]:
        """Returns the resources in the state of a stack; an empty stack has none."""
        state = json.loads((SETTINGS_FOLDER / f".pulumi/stacks/ant-media-cluster/{stack}.json").read_text())
        resources: list[dict[str, Any]] = (state["checkpoint"].get("latest") or {}).get("resources") or []
        return resources

    def operator_command(self, *command: str | Path) -> list[str]:
        """Wraps a command line to run as the operator on the sandbox's internet."""
        return ["sandbox/bin/cloud", "exec", "--", *map(str, command)]

    def network_namespace_command(self, machine: Machine, *command: str | Path) -> list[str]:
        """Wraps a command line to run in a machine's network namespace with this host's files."""
        leader = f"$(cat /proc/{machine.nspawn_pid}/task/{machine.nspawn_pid}/children)"
        enter = f'exec nsenter --target={leader} --net "$@"'
        return self.operator_command("bash", "-c", enter, "at-network", *command)

    def run_on(self, machine: str, *command: str, input: str | None = None) -> CommandResult:
        """Runs a command as root on a machine, given by name or ID. As `make shell` does, but without the start of Python."""
        machines = self.list_machines()
        found = machines.get(machine) or next(other for other in machines.values() if other.id == machine)
        enter = ("nsenter", f"--target={get_sandbox_init()}", "--all", "sh", "-c", ENTER_MACHINE)
        return self.run(*enter, str(found.nspawn_pid), *command, input=input)

    def run_haproxy_command(self, command: str) -> str:
        """Returns HAProxy's answer to a command on its admin socket."""
        socat = ("socat", "-", "UNIX-CONNECT:/run/haproxy/admin.sock")
        return self.run_on("load-balancer", *socat, input=f"{command}\n").check()

    def apply_haproxy_config(self, text: str) -> CommandResult:
        return self.run_on("load-balancer", f"{INSTALLED_SCRIPTS}/apply-haproxy-config.sh", input=text)

    def get_status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.check_output("sandbox/bin/cloud", "status", "--json"))
        return status

    def list_machines(self) -> dict[str, Machine]:
        """Returns the machines of all stacks by name; those of this stack by HAProxy's server name."""
        found = [
            Machine(
                name=entry["name"].removeprefix(f"{STACK}-"),
                id=entry["instance_id"],
                state=entry["state"],
                private_address=entry["private_address"],
                public_address=entry["public_address"],
                nspawn_pid=entry["process"] or 0,
            )
            for entry in json.loads((STATE / "status.json").read_text())
        ]
        return {machine.name: machine for machine in found}

    def get_server_statistics(self) -> dict[str, dict[str, str]]:
        """Returns HAProxy's statistics of each server by `backend/server`."""
        table = self.run_haproxy_command("show stat -1 4 -1")
        rows = csv.DictReader(io.StringIO(table.removeprefix("# ")))
        return {f"{row['pxname']}/{row['svname']}": row for row in rows}

    def aws_client(self, service: str) -> Any:
        """Returns a boto3 client. It reaches AWS only from the sandbox's internet: see `SandboxInternet.call`."""
        session = boto3.Session("test", "test", region_name=addresses.REGION)
        return session.client(service, endpoint_url=addresses.API_URL)


@contextmanager
def running_process(command: Sequence[str | Path]) -> Generator[subprocess.Popen[str]]:
    """Runs a command in the background and terminates it on exit."""
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


@contextmanager
def recording(command: Sequence[str | Path]) -> Generator[Callable[[], Any]]:
    """Runs a command that prints `ready` and records until its standard input closes.

    Yields a function that stops the recording and returns the JSON that the command prints.
    """
    with running_process(command) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin
        assert stdout
        assert stdout.readline() == "ready\n"

        def stop() -> Any:
            stdin.close()
            return json.loads(stdout.read())

        yield stop


def wait_until(condition: Callable[[], object], interval: float = 0.3) -> None:
    """Waits until a condition is true. An AssertionError, OSError or HTTPException in the condition counts as false."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
            problem = None
        except (AssertionError, OSError, HTTPException) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"the condition was not met within {PATIENCE} s") from problem
        time.sleep(interval)
