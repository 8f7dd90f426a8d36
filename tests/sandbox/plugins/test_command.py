"""The command provider against a real sshd: when commands run, their output and state, and their errors."""

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandbox.plugins.command.plugin import RESOURCE_TYPES
from sandbox.plugins.command.ssh import OPEN_CONNECTIONS
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import Operation, ProviderError
from tests.project import PROJECT
from tests.sandbox.plugins.plugin_sshd import PASSWORD, Sshd
from tests.sandbox.plugins.plugin_stack import END_ON_INTERRUPT, Stack

T = TypeVar("T")

REMOTE, LOCAL = RESOURCE_TYPES["command:remote:Command"], RESOURCE_TYPES["command:local:Command"]
HEADER = """
import json, pathlib, pulumi
from pulumi_command import local, remote
machine = json.loads(pathlib.Path("machine.json").read_text())
connection = remote.ConnectionArgs(**machine)
"""


@pytest.fixture
def remote(stack: Stack, sshd: Sshd, tmp_path: Path) -> Stack:
    """A stack whose programs read the sshd's connection. Its commands append to /scratch/marks on the machine."""
    (stack.folder / "machine.json").write_text(json.dumps(sshd.connection))
    for name in ("marks", "seen"):
        sshd.scratch(name).unlink(missing_ok=True)
    return stack


def marks(sshd: Sshd) -> list[str]:
    marks = sshd.scratch("marks")
    return marks.read_text().splitlines() if marks.exists() else []


def mark(text: str) -> str:
    return f"echo {text} >> /scratch/marks"


UNTIL_SEEN = "until [ -e /scratch/seen ]; do sleep 0.05; done"


class RecordedOperation(Operation):
    """An operation that records its log lines."""

    def __init__(self) -> None:
        super().__init__("urn:pulumi:test::plugins::command:remote:Command::c", None)
        object.__setattr__(self, "lines", [])

    lines: list[str]

    async def status(self, message: str) -> None:
        self.lines.append(message)

    async def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    async def error(self, message: str) -> None:
        self.lines.append(f"error: {message}")


def run_with_timeout(work: Coroutine[Any, Any, T], seconds: float = 300) -> T:
    """Runs a provider operation with a timeout and closes its connections."""

    async def bounded() -> T:
        try:
            return await asyncio.wait_for(work, seconds)
        finally:
            while OPEN_CONNECTIONS:
                OPEN_CONNECTIONS.pop().abort()

    return asyncio.run(bounded())


def inputs(sshd: Sshd, create: str, connection: Properties | None = None, **others: Any) -> Properties:
    names = {"private_key": "privateKey", "host_key": "hostKey"}
    known: Properties = {names.get(name, name): value for name, value in sshd.connection.items()}
    given: Properties = {"create": create, "connection": {**known, **(connection or {})}, **others}
    checked, failures = REMOTE.check("c", {}, given)
    assert not failures
    return checked


def create(sshd: Sshd, command: str, connection: Properties | None = None, **others: Any) -> Properties:
    return run_with_timeout(REMOTE.create(RecordedOperation(), inputs(sshd, command, connection, **others)))[
        1
    ]


def failure(sshd: Sshd, command: str, connection: Properties | None = None, **others: Any) -> str:
    with pytest.raises(ProviderError) as failed:
        create(sshd, command, connection, **others)
    return str(failed.value)


# ---- when commands run


def test_create_runs_once_and_not_again_while_nothing_changes(remote: Stack, sshd: Sshd) -> None:
    source = (
        f"c = remote.Command('c', connection=connection, create='cat; echo oops >&2; {UNTIL_SEEN}; {mark('created')}', "
        "stdin='hello\\nthere\\n')\n"
        "pulumi.export('out', c.stdout)\npulumi.export('err', c.stderr)\npulumi.export('in', c.stdin)\n"
    )
    remote.program(HEADER + source)
    assert "out: [unknown]" in remote.preview()
    with running_up(remote) as update:
        # The output appears while the command runs: it ends only after that.
        assert any(re.search(r"creating \(\d+s\) there", line) for line in update.stdout or [])
        sshd.scratch("seen").touch()
        update.communicate(timeout=300)
    assert update.returncode == 0
    assert remote.outputs() == {"out": "hello\nthere", "err": "oops", "in": "hello\nthere\n"}
    assert "unchanged" in remote.up("--refresh", "--expect-no-changes")
    assert marks(sshd) == ["created"]


FIVE_COMMANDS = """
machine = local.Command('machine', create='true', triggers=['{0}'])
def command(name, **inputs):
    return remote.Command(name, connection=connection, **inputs)
def mark(text):
    return f'echo {text} >> /scratch/marks'
command('both', create=mark('both created'), update=mark('both updated'), stdin='{0}')
command('one', create=mark('one created'), stdin='{0}')
command('triggered', create=mark('triggered created'), update=mark('triggered updated'),
    delete=mark('triggered deleted'), triggers=['{0}'])
command('apart', create=mark('apart created'))
command('tied', create=mark('tied created'), opts=pulumi.ResourceOptions(replace_with=[machine], deleted_with=machine))
"""


@dataclass(frozen=True)
class ChangedUp:
    """The planned operations and the executed commands of an `up` with changed inputs."""

    planned: dict[str, str]
    executed: dict[str, list[str]]


@pytest.fixture(scope="module")
def changed_up(tmp_path_factory: pytest.TempPathFactory, pulumi_home: Path, sshd: Sshd) -> ChangedUp:
    stack = Stack(tmp_path_factory.mktemp("changed") / "stack", pulumi_home)
    (stack.folder / "machine.json").write_text(json.dumps(sshd.connection))
    sshd.scratch("marks").unlink(missing_ok=True)
    stack.program(HEADER + FIVE_COMMANDS.replace("{0}", "old")).up()
    assert len(marks(sshd)) == 5
    sshd.scratch("marks").unlink()
    planned = stack.program(HEADER + FIVE_COMMANDS.replace("{0}", "new")).preview_operations()
    stack.up()
    executed: dict[str, list[str]] = {}
    for name, what in (line.split() for line in marks(sshd)):
        executed.setdefault(name, []).append(what)
    return ChangedUp(planned, executed)


def test_a_changed_input_runs_update(changed_up: ChangedUp) -> None:
    assert changed_up.planned["both"] == "update"
    assert changed_up.executed["both"] == ["updated"]


def test_a_changed_input_runs_create_again_without_an_update_command(changed_up: ChangedUp) -> None:
    assert changed_up.planned["one"] == "update"
    assert changed_up.executed["one"] == ["created"]


def test_a_changed_trigger_replaces_and_creates_before_it_deletes(changed_up: ChangedUp) -> None:
    assert changed_up.planned["triggered"] in ("replace", "create-replacement", "delete-replaced")
    assert changed_up.executed["triggered"] == ["created", "deleted"]


def test_a_replaced_machine_replaces_its_command_only_with_replace_with(changed_up: ChangedUp) -> None:
    assert changed_up.executed["tied"] == ["created"]
    assert "apart" not in changed_up.executed


@pytest.mark.parametrize(
    "change",
    [
        {"stdin": "other"},
        {"create": "other"},
        {"update": "other"},
        {"delete": "other"},
        {"environment": {"A": "b"}},
        {"logging": "none"},
        {"addPreviousOutputInEnv": False},
        {"connection": {"host": "10.0.0.1"}},
        {"connection": {"host": "h", "privateKey": "rotated"}},
        {"connection": {"host": "h", "hostKey": "other"}},
        {"connection": {"host": "h", "dialErrorLimit": 60}},
    ],
)
def test_any_changed_input_is_an_update(change: Properties) -> None:
    base: Properties = {"create": "true", "connection": {"host": "h"}}
    old, new = (REMOTE.check("c", {}, given)[0] for given in (base, {**base, **change}))
    diff = REMOTE.diff(old, old, new)
    assert diff.paths
    assert not diff.replaces


def test_a_changed_trigger_is_a_replacement_without_the_sdks_request() -> None:
    old: Properties = {"create": "true", "triggers": [1]}
    new: Properties = {"create": "true", "triggers": [2]}
    assert LOCAL.diff(old, old, new).replaces == {"triggers"}


# Without components.machine, which imports pulumi_aws, a run takes half as long.
RERUN = """
import sys, types
sys.modules["components.machine"] = types.SimpleNamespace(Machine=object)
from components.remote_script import run_again_after_failure
remote.Command("c", connection=connection, create="echo {0} >> /scratch/marks; [ {0} != bad ]", opts=run_again_after_failure())
"""


def test_failed_command_runs_again_although_its_inputs_went_back(remote: Stack, sshd: Sshd) -> None:
    for package in ("cluster", "components", "templates"):
        (remote.folder / package).symlink_to(PROJECT / package)
    good, bad = (HEADER + RERUN.replace("{0}", value) for value in ("good", "bad"))
    remote.program(good).up()
    remote.program(bad).up(fails=True)
    remote.program(good)
    assert remote.preview_operations()["c"] != "same"
    remote.up()
    assert marks(sshd) == ["good", "bad", "good"]
    remote.up("--expect-no-changes")


def test_a_delete_command_needs_its_machine_unless_deleted_with_it(stack: Stack, sshd: Sshd) -> None:
    unreachable = {**sshd.connection, "port": 9, "dial_error_limit": 0}
    (stack.folder / "machine.json").write_text(json.dumps(unreachable))
    program = (
        "machine = local.Command('machine', create='true')\n"
        "remote.Command('c', connection=connection, delete='true'{})\n"
    )
    stack.program(HEADER + program.format("")).up()
    assert "connect: connection refused" in stack.destroy(fails=True)
    stack.program(HEADER + program.format(", opts=pulumi.ResourceOptions(deleted_with=machine)")).up()
    stack.destroy()
    assert stack.resources() == {}


# ---- output and state


def test_a_failure_prints_the_command_and_its_output(remote: Stack) -> None:
    remote.program(
        HEADER + "remote.Command('c', connection=connection, create='echo one; echo two >&2; exit 3')\n"
    )
    shown = remote.up(fails=True).split("Diagnostics:")[1]
    assert 'error: Process exited with status 3: running "echo one; echo two >&2; exit 3":' in shown
    assert "one" in shown
    assert "two" in shown
    assert "c" not in remote.resources()


def test_a_secret_input_is_encrypted_and_the_output_only_on_request(remote: Stack) -> None:
    program = (
        "word = pulumi.Output.secret('swordfish')\n"
        "remote.Command('plain', connection=connection, create='cat', stdin=word)\n"
        "remote.Command('hidden', connection=connection, create='cat', stdin=word, logging=remote.Logging.NONE, "
        "opts=pulumi.ResourceOptions(additional_secret_outputs=['stdout']))\n"
    )
    printed = remote.program(HEADER + program).up()
    assert re.search(r"plain creat\w+ \([0-9.]+s\) swordfish", printed)
    assert not re.search(r"hidden .*swordfish", printed)
    state = remote.resources()
    for name in ("plain", "hidden"):
        for part in ("inputs", "outputs"):
            assert "ciphertext" in state[name][part]["stdin"]
            assert "ciphertext" in state[name][part]["connection"]
    assert state["plain"]["outputs"]["stdout"] == "swordfish"
    assert "ciphertext" in state["hidden"]["outputs"]["stdout"]


def test_state_has_the_connection_and_its_key_as_secrets_after_a_refresh_too(remote: Stack) -> None:
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
    remote.program(HEADER + "remote.Command('c', connection=connection, create='true')\n").up()

    def check_state() -> None:
        exported = json.loads(remote.run("stack", "export", "--show-secrets"))["deployment"]["resources"]
        (command,) = (each for each in exported if each["urn"].endswith("::c"))
        for part in ("inputs", "outputs"):
            whole = command[part]["connection"]
            assert secret.items() <= whole.items()
            connection = json.loads(whole["plaintext"])
            assert connection["host"] == "127.0.0.1"
            assert secret.items() <= connection["privateKey"].items()
            assert "PRIVATE KEY" in connection["privateKey"]["plaintext"]

    check_state()
    remote.refresh()
    check_state()
    assert "unchanged" in remote.up("--expect-no-changes")


def test_logging_selects_the_shown_streams(sshd: Sshd) -> None:
    shown = {}
    for logging in ("stdout", "stderr", "stdoutAndStderr", "none"):
        run = RecordedOperation()
        given = inputs(sshd, "echo out; sleep 0.1; echo err >&2", logging=logging)
        _, state = run_with_timeout(REMOTE.create(run, given))
        assert (state["stdout"], state["stderr"]) == ("out", "err")
        shown[logging] = run.lines
    assert shown == {"stdout": ["out"], "stderr": ["err"], "stdoutAndStderr": ["out", "err"], "none": []}


def test_an_unknown_type_or_property_is_an_error_that_names_it(remote: Stack) -> None:
    program = "remote.CopyToRemote('c', connection=connection, source=pulumi.FileAsset('Pulumi.yaml'), remote_path='/x')\n"
    assert "command:remote:CopyToRemote" in remote.program(HEADER + program).up(fails=True)
    program = "local.Command('c', create='true', archive_paths=['*'])\n"
    shown = remote.program(END_ON_INTERRUPT + HEADER + program).up(fails=True)
    assert "property archivePaths value" in shown
    assert "unknown property of command:local:Command" in shown
    assert "Traceback" not in shown


# ---- connecting


def test_connecting_fails_after_eleven_seconds_by_default(sshd: Sshd) -> None:
    started = time.monotonic()
    message = failure(sshd, "true", {"port": 9})
    assert message == "after 10 failed attempts: dial tcp 127.0.0.1:9: connect: connection refused"
    assert time.monotonic() - started > 10


def test_connecting_waits_for_a_booting_machine(tmp_path: Path) -> None:
    machine = Sshd(tmp_path)
    run = RecordedOperation()

    async def boot() -> Properties:
        # The attempts of the default limit take 11 s, and its start may take longer on a busy machine.
        patient: Properties = {"dialErrorLimit": 60}
        creating = asyncio.ensure_future(REMOTE.create(run, inputs(machine, "echo up", patient)))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(machine.start)
        return (await creating)[1]

    try:
        assert run_with_timeout(boot())["stdout"] == "up"
    finally:
        machine.stop()
    assert run.lines[0] == "Dial 1/60 failed: retrying"


def test_a_wrong_host_key_is_refused_and_no_host_key_accepts_any(sshd: Sshd) -> None:
    other = sshd.user_key.export_public_key().decode()
    message = failure(sshd, "true", {"hostKey": other, "dialErrorLimit": 0})
    assert message == "after 0 failed attempts: ssh: handshake failed: ssh: host key mismatch"
    unchecked = inputs(sshd, "echo in")
    connection = unchecked["connection"]
    assert isinstance(connection, dict)
    del connection["hostKey"]
    assert run_with_timeout(REMOTE.create(RecordedOperation(), unchecked))[1]["stdout"] == "in"


def test_a_key_or_a_password_logs_in_and_an_unknown_key_does_not(sshd: Sshd) -> None:
    unknown_key = sshd.host_key.export_private_key().decode()
    message = failure(sshd, "true", {"privateKey": unknown_key, "dialErrorLimit": 0})
    assert message.endswith(
        "ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain"
    )
    assert create(sshd, "whoami", {"privateKey": unknown_key, "password": PASSWORD})["stdout"] == "root"


def test_an_unreachable_agent_fails_at_once_even_with_a_key(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere/agent")
    message = failure(sshd, "true")
    assert message == "dial unix /nowhere/agent: connect: no such file or directory"
    # An empty path does not help.
    assert failure(sshd, "true", {"agentSocketPath": ""}) == "dial unix: missing address"


def test_a_proxy_connects_and_its_failure_names_it(sshd: Sshd) -> None:
    known = inputs(sshd, "true")["connection"]
    assert isinstance(known, dict)
    address = create(sshd, "echo $SSH_CLIENT", {"proxy": known})["stdout"]
    assert isinstance(address, str)
    assert address.startswith("127.0.0.1")
    refused = failure(sshd, "true", {"port": 9, "proxy": known, "dialErrorLimit": 0})
    assert refused == "proxy: after 0 failed attempts: ssh: rejected: connect failed (Connection refused)"
    closed: Properties = {**known, "port": 9, "dialErrorLimit": 0}
    assert failure(sshd, "true", {"proxy": closed}).startswith("proxy: after 0 failed attempts: dial tcp")


def test_a_server_that_never_answers_hangs_the_command(sshd: Sshd) -> None:
    async def silent() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        given = inputs(sshd, "true", {"port": port, "perDialTimeout": 1, "dialErrorLimit": 0})
        await REMOTE.create(RecordedOperation(), given)

    with pytest.raises(TimeoutError):
        run_with_timeout(silent(), 2.5)


# ---- standard input, environment, output


def test_a_variable_that_sshd_refuses_is_an_error_before_the_command_runs(sshd: Sshd) -> None:
    sshd.scratch("marks").unlink(missing_ok=True)
    assert create(sshd, "echo $WELCOME", environment={"WELCOME": "in"})["stdout"] == "in"
    run = RecordedOperation()
    with pytest.raises(ProviderError, match='could not set environment variable "OTHER": ssh: setenv failed'):
        run_with_timeout(REMOTE.create(run, inputs(sshd, mark("ran"), environment={"OTHER": "out"})))
    assert "Unable to set 'OTHER'" in run.lines[0]
    assert marks(sshd) == []


@pytest.mark.parametrize("given", [True, False])
def test_previous_output_that_sshd_refuses_is_a_warning(sshd: Sshd, given: bool) -> None:
    run = RecordedOperation()
    old = inputs(sshd, "echo first", addPreviousOutputInEnv=given)

    async def twice() -> Properties:
        _, state = await REMOTE.create(run, old)
        return await REMOTE.update(run, "c", state, old, {**old, "create": "echo second"})

    assert run_with_timeout(twice())["stdout"] == "second"
    warnings = [
        line for line in run.lines if line.startswith("warning: Unable to set 'PULUMI_COMMAND_STDOUT'")
    ]
    assert len(warnings) == given


def test_unread_standard_input_ends_in_eof(sshd: Sshd) -> None:
    assert failure(sshd, "true", stdin="x" * 8_000_000) == 'EOF: running "true":\n'
    assert create(sshd, "wc -c", stdin="x" * 8_000_000)["stdout"] == "8000000"


def test_a_line_over_64_kib_hangs_unless_logging_is_off(sshd: Sshd) -> None:
    long_line = "head -c 70000 /dev/zero | tr '\\0' x"
    with pytest.raises(TimeoutError):
        run_with_timeout(REMOTE.create(RecordedOperation(), inputs(sshd, long_line)), 2)
    assert create(sshd, long_line, logging="none")["stdout"] == "x" * 70000


def running_up(stack: Stack) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["pulumi", "--non-interactive", "up", "--yes", "--skip-preview"],
        cwd=stack.folder,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def interrupt(update: "subprocess.Popen[str]", when: str) -> None:
    """Interrupts an update when it prints `when`. Waits until the update says that it was interrupted."""
    assert update.stdout
    assert any(when in line for line in update.stdout)
    update.send_signal(signal.SIGINT)
    assert any("^C received" in line for line in update.stdout)


def test_an_interrupted_run_waits_for_its_remote_command(remote: Stack, sshd: Sshd) -> None:
    command = f"echo started; {UNTIL_SEEN}; {mark('ended')}"
    remote.program(HEADER + f"remote.Command('c', connection=connection, create='{command}')\n")
    with running_up(remote) as update:
        interrupt(update, "started")
        time.sleep(2)
        assert update.poll() is None
        sshd.scratch("seen").touch()
        update.communicate(timeout=300)
    assert update.returncode != 0
    assert marks(sshd) == ["ended"]
    assert "c" in remote.resources()


def test_an_interrupted_run_stops_connecting(remote: Stack, sshd: Sshd) -> None:
    """Without a limit it would connect for ever."""
    unreachable = {**sshd.connection, "port": 9, "dial_error_limit": -1}
    (remote.folder / "machine.json").write_text(json.dumps(unreachable))
    remote.program(HEADER + "remote.Command('c', connection=connection, create='true')\n")
    with running_up(remote) as update:
        interrupt(update, "Dial 3/inf failed: retrying")
        shown, _ = update.communicate(timeout=300)
    assert update.returncode != 0
    assert "context canceled" in shown


# ---- local commands


def test_a_local_command_runs_with_its_environment_and_interpreter(tmp_path: Path) -> None:
    given, failures = LOCAL.check(
        "c",
        {},
        {
            "create": "import os, sys; print(os.getcwd(), os.environ['A'], sys.stdin.read())",
            "interpreter": ["python3", "-c"],
            "environment": {"A": "b"},
            "dir": str(tmp_path),
            "stdin": "typed",
        },
    )
    assert not failures
    assert run_with_timeout(LOCAL.create(RecordedOperation(), given))[1]["stdout"] == f"{tmp_path} b typed"
    given, _ = LOCAL.check("c", {}, {"create": "echo no; exit 4"})
    with pytest.raises(ProviderError, match=r'^exit status 4: running "echo no; exit 4":\nno\n$'):
        run_with_timeout(LOCAL.create(RecordedOperation(), given))


def test_a_local_command_returns_the_files_that_match_its_asset_paths(stack: Stack) -> None:
    stack.program(
        "import pulumi\nfrom pulumi_command import local\n"
        "c = local.Command('c', create='mkdir -p d/e && touch d/e/f d/g d/h.tmp', asset_paths=['d/**', '!**.tmp'])\n"
        "pulumi.export('files', c.assets.apply(lambda assets: sorted(assets)))\n"
    ).up()
    assert stack.outputs()["files"] == ["d/e/f", "d/g"]
    assert "unchanged" in stack.up("--expect-no-changes")


def test_a_local_command_sees_its_previous_output(tmp_path: Path) -> None:
    old, _ = LOCAL.check("c", {}, {"create": "echo first", "update": "echo $PULUMI_COMMAND_STDOUT again"})

    async def twice() -> Properties:
        _, state = await LOCAL.create(RecordedOperation(), old)
        return await LOCAL.update(RecordedOperation(), "c", state, old, {**old, "stdin": "x"})

    assert run_with_timeout(twice())["stdout"] == "first again"
