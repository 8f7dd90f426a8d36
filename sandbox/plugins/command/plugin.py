"""A stand-in for `pulumi-resource-command`, the official provider of `command:remote:Command` and `command:local:Command`.

A change of `triggers` replaces; a change of any other input runs `update`, or `create` where there is none.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import asyncssh
from asyncssh.packet import String

from sandbox.plugins.command import ssh
from sandbox.plugins.properties import UNKNOWN, Properties, Value, differences
from sandbox.plugins.provider import Diff, Failures, Provider, ProviderError, Run, top_level

LINE_LIMIT = 64 * 1024
# What sshd takes of standard input before the command reads any of it.
SSHD_WINDOW = 2 * 1024 * 1024
LOGGED = {"stdout": ("stdout",), "stderr": ("stderr",), "stdoutAndStderr": ("stdout", "stderr"), "none": ()}
ENVIRONMENT_REFUSED = (
    "Unable to set '{}'. This only works if your SSH server is configured to accept\n"
    "\tthese variables via AcceptEnv. Alternatively, if a Bash-like shell runs the command on the remote host, "
    "you could\n\tprefix the command itself with the variables in the form 'VAR=value command'"
)

COMMON_INPUTS = frozenset(
    {"create", "update", "delete", "triggers", "stdin", "logging", "environment", "addPreviousOutputInEnv"}
)
CONNECTION_INPUTS = frozenset(
    {
        "host", "port", "user", "password", "privateKey", "privateKeyPassword", "hostKey", "agentSocketPath",
        "dialErrorLimit", "perDialTimeout",
    }
)  # fmt: skip
CONNECTION_DEFAULTS: Properties = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}


@dataclass
class Output:
    """What a command prints: collected per stream and in the order it came, and shown while it runs."""

    run: Run
    logged: tuple[str, ...]
    streams: dict[str, bytearray] = field(
        default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    together: bytearray = field(default_factory=bytearray)
    line: bytearray = field(default_factory=bytearray)

    async def add(self, stream: str, data: bytes) -> None:
        self.streams[stream] += data
        self.together += data
        if stream not in self.logged:
            return
        *lines, rest = (bytes(self.line) + data).split(b"\n")
        self.line = bytearray(rest)
        for line in lines:
            await self.run.status(line.decode(errors="replace").removesuffix("\r"))
        if len(rest) >= LINE_LIMIT or any(len(line) >= LINE_LIMIT for line in lines):
            await self.run.warn(
                "a line of output is longer than 64 KiB: the command provider waits here for ever"
            )
            await asyncio.Event().wait()

    async def finish(self) -> None:
        if self.line:
            await self.run.status(self.line.decode(errors="replace"))

    def text(self, stream: str) -> str:
        return self.streams[stream].decode(errors="replace").removesuffix("\n")

    def failure(self, reason: str, command: str) -> ProviderError:
        printed = self.together.decode(errors="replace")
        return ProviderError(f"{reason}: running {ssh.quoted(command)}:\n{printed}")


class Execute(Protocol):
    """Runs a command with a Command's inputs; says what went wrong, if anything did."""

    async def __call__(
        self, run: Run, command: str, inputs: Properties, previous: Mapping[str, str], output: Output
    ) -> str | None: ...


async def execute_remotely(
    run: Run, command: str, inputs: Properties, previous: Mapping[str, str], output: Output
) -> str | None:
    connection = inputs["connection"]
    assert isinstance(connection, dict)
    client = await ssh.dial(run, connection)
    OPEN_CONNECTIONS.append(client)
    environment = dict(_environment(inputs))
    for name, value in environment.items():
        if not await _server_accepts(client, name, value):
            await run.error(ENVIRONMENT_REFUSED.format(name))
            raise ProviderError(f'could not set environment variable "{name}": ssh: setenv failed')
    for name, value in previous.items():
        if await _server_accepts(client, name, value):
            environment[name] = value
        else:
            await run.warn(ENVIRONMENT_REFUSED.format(name))
    process = await client.create_process(command, env=environment, encoding=None)
    unread = await _converse(process, str(inputs.get("stdin", "")).encode(), output)
    return ssh.ended_badly(process) or ("EOF" if unread else None)


# The official provider leaves each connection open until it is told to end.
OPEN_CONNECTIONS: list[asyncssh.SSHClientConnection] = []


async def _server_accepts(client: asyncssh.SSHClientConnection, name: str, value: str) -> bool:
    """Whether sshd takes the variable. asyncssh does not ask for an answer, so a channel of its own does."""
    channel = asyncssh.SSHClientChannel[bytes](
        client, asyncio.get_running_loop(), "strict", None, "strict", 1 << 21, 1 << 15
    )
    await channel._open(b"session")  # pyright: ignore[reportPrivateUsage]
    variable = String(name), String(value)
    accepted = await channel._make_request(b"env", *variable)  # pyright: ignore[reportPrivateUsage]
    channel.close()
    return bool(accepted)


async def _converse(process: asyncssh.SSHClientProcess[bytes], stdin: bytes, output: Output) -> bool:
    """Feeds a remote command and collects what it prints until it ends; whether it left input unread."""

    async def feed() -> bool:
        try:
            process.stdin.write(stdin)
            await process.stdin.drain()
            process.stdin.write_eof()
        except (BrokenPipeError, ConnectionError, asyncssh.Error):
            return True
        return False

    async def collect(stream: str, reader: asyncssh.SSHReader[bytes]) -> None:
        while data := await reader.read(LINE_LIMIT):
            await output.add(stream, data)

    feeding = asyncio.ensure_future(feed())
    try:
        await asyncio.gather(collect("stdout", process.stdout), collect("stderr", process.stderr))
        await process.wait_closed()
    finally:
        feeding.cancel()
        (unread,) = await asyncio.gather(feeding, return_exceptions=True)
    return unread is not False and len(stdin) > SSHD_WINDOW


async def execute_locally(
    run: Run, command: str, inputs: Properties, previous: Mapping[str, str], output: Output
) -> str | None:
    interpreter = inputs.get("interpreter")
    words = [str(word) for word in interpreter] if isinstance(interpreter, list) else ["/bin/sh", "-c"]
    directory = inputs.get("dir")
    process = await asyncio.create_subprocess_exec(
        *words,
        command,
        cwd=None if directory is None else str(directory),
        env={**os.environ, **dict(_environment(inputs)), **previous},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr

    async def feed(stdin: asyncio.StreamWriter) -> None:
        stdin.write(str(inputs.get("stdin", "")).encode())
        try:
            await stdin.drain()
            stdin.close()
            await stdin.wait_closed()
        except ConnectionError:
            pass  # as in the shell, a command need not read what it is given

    async def collect(stream: str, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(LINE_LIMIT):
            await output.add(stream, data)

    try:
        await asyncio.gather(
            feed(process.stdin), collect("stdout", process.stdout), collect("stderr", process.stderr)
        )
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    if code < 0:
        return f"signal: {-code}"
    return f"exit status {code}" if code else None


def _environment(inputs: Properties) -> Iterator[tuple[str, str]]:
    variables = inputs.get("environment")
    if isinstance(variables, dict):
        for name, value in variables.items():
            yield name, str(value)


@dataclass(frozen=True)
class Command:
    """`command:remote:Command` or `command:local:Command`: they differ in where the command is run."""

    token: str
    inputs: frozenset[str]
    execute: Execute

    def check(self, name: str, old: Properties, inputs: Properties) -> tuple[Properties, Failures]:
        failures = self._unknown("", inputs, self.inputs)
        checked: Properties = {"addPreviousOutputInEnv": True, **inputs}
        if "connection" in self.inputs:
            checked["connection"] = self._check_connection(inputs, failures)
        logging = inputs.get("logging", "stdoutAndStderr")
        if logging not in LOGGED and logging != UNKNOWN:
            failures["logging"] = f"{logging} is none of {', '.join(LOGGED)}"
        return checked, failures

    def _check_connection(self, inputs: Properties, failures: Failures) -> Value:
        connection = inputs.get("connection")
        if not isinstance(connection, dict):
            if connection != UNKNOWN:
                failures["connection"] = "Missing required property 'connection'"
            return connection
        failures |= self._unknown("connection.", connection, CONNECTION_INPUTS | {"proxy"})
        checked = {**CONNECTION_DEFAULTS, **connection}
        proxy = connection.get("proxy")
        if isinstance(proxy, dict):
            failures |= self._unknown("connection.proxy.", proxy, CONNECTION_INPUTS)
            checked["proxy"] = {**CONNECTION_DEFAULTS, **proxy}
        return checked

    def _unknown(self, path: str, given: Properties, known: frozenset[str]) -> Failures:
        return {
            f"{path}{name}": f"unknown property of {self.token}: the sandbox's command provider does not have it"
            for name in sorted(given.keys() - known)
        }

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff:
        paths = {path: (before, after) for path, before, after in differences("", old_inputs, inputs)}
        return Diff(paths, frozenset({"triggers"} & {top_level(path) for path in paths}))

    def plan(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        return {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}

    async def create(self, run: Run, inputs: Properties) -> tuple[str, Properties]:
        state = await self._run(run, inputs.get("create"), inputs, {"stdout": "", "stderr": ""})
        return f"{run.name}{secrets.token_hex(4)}", state

    async def read(self, run: Run, resource_id: str, state: Properties) -> Properties:
        return state

    def inputs_of(self, inputs: Properties, state: Properties) -> Properties:
        return inputs

    async def update(
        self, run: Run, resource_id: str, state: Properties, old_inputs: Properties, inputs: Properties
    ) -> Properties:
        return await self._run(run, inputs.get("update", inputs.get("create")), inputs, state)

    async def delete(self, run: Run, resource_id: str, state: Properties) -> None:
        await self._run(run, state.get("delete"), state, state)

    async def _run(self, run: Run, command: Value, inputs: Properties, before: Properties) -> Properties:
        """Runs the command and returns the state after it; `before` is where previous output is found."""
        printed = {stream: before.get(stream, "") for stream in ("stdout", "stderr")}
        if command is None:
            return {**inputs, **printed}
        previous = {
            f"PULUMI_COMMAND_{stream.upper()}": str(text)
            for stream, text in printed.items()
            if text and inputs["addPreviousOutputInEnv"]
        }
        output = Output(run, LOGGED[str(inputs.get("logging", "stdoutAndStderr"))])
        problem = await self.execute(run, str(command), inputs, previous, output)
        await output.finish()
        if problem is not None:
            raise output.failure(problem, str(command))
        return {**inputs, "stdout": output.text("stdout"), "stderr": output.text("stderr")}


KINDS = {
    kind.token: kind
    for kind in (
        Command("command:remote:Command", COMMON_INPUTS | {"connection"}, execute_remotely),
        Command("command:local:Command", COMMON_INPUTS | {"dir", "interpreter"}, execute_locally),
    )
}


class CommandProvider(Provider):
    name = "command"
    version = "1.2.1"
    kinds = KINDS


main: Callable[[], None] = CommandProvider.main
