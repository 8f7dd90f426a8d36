"""A stand-in for `pulumi-resource-command`, the official provider of `command:remote:Command` and `command:local:Command`.

A change of `triggers` replaces the command. A change of another input runs `update`, or `create` if there is no `update`.
"""

import asyncio
import ctypes.util
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandbox.plugins.command.output import LINE_LIMIT, Output
from sandbox.plugins.properties import SIGNATURE, UNKNOWN, Properties, Value, find_differences
from sandbox.plugins.provider import Diff, Failures, Operation, Provider, top_level

# The signature of an asset in a message.
ASSET = "c44067f5952c0a294b673a41bacd8c17"
# The operations whose command runs on a machine.
REMOTE_COMMANDS: set[asyncio.Task[Any]] = set()
LOGGED = {"stdout": ("stdout",), "stderr": ("stderr",), "stdoutAndStderr": ("stdout", "stderr"), "none": ()}
COMMON_INPUTS = frozenset(
    {"create", "update", "delete", "triggers", "stdin", "logging", "environment", "addPreviousOutputInEnv"}
)
CONNECTION_INPUTS = frozenset(
    {
        "host", "port", "user", "password", "privateKey", "privateKeyPassword", "hostKey", "agentSocketPath",
        "dialErrorLimit", "perDialTimeout",
    }
)  # fmt: skip
# The fields that the official provider declares secret.
SECRET_PROPERTIES = frozenset(
    ("connection", *proxy, name)
    for proxy in ((), ("proxy",))
    for name in ("password", "privateKey", "privateKeyPassword")
)
CONNECTION_DEFAULTS: Properties = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}


def find_assets(folder: Path, patterns: Value) -> Value:
    """Returns the files that match the patterns, as assets. `!` excludes files; `*` matches no `/`, `**` does."""
    assets: Properties = {}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        name = str(path.relative_to(folder))
        for pattern in patterns if isinstance(patterns, list) else []:
            if not _match(str(pattern).removeprefix("!"), name):
                continue
            if str(pattern).startswith("!"):
                assets.pop(name, None)
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                assets[name] = {SIGNATURE: ASSET, "hash": digest, "path": str(path)}
    return assets


def _match(pattern: str, name: str) -> bool:
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    regex = "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern))
    return re.fullmatch(regex, name) is not None


class Execute(Protocol):
    """Runs a command with the inputs of its resource. Returns the error, or None."""

    async def __call__(
        self,
        operation: Operation,
        command: str,
        inputs: Properties,
        previous: Mapping[str, str],
        output: Output,
    ) -> str | None: ...


async def execute_remotely(
    operation: Operation, command: str, inputs: Properties, previous: Mapping[str, str], output: Output
) -> str | None:
    # Imported here because the import is slow and a preview does not need it.
    # asyncssh looks for two optional libraries, with a compiler and a linker. Without them it uses other algorithms.
    ctypes.util.find_library = lambda name: None
    from sandbox.plugins.command import ssh

    connection = inputs["connection"]
    assert isinstance(connection, dict)
    client = await ssh.dial(operation, connection)
    task = asyncio.current_task()
    assert task
    REMOTE_COMMANDS.add(task)
    try:
        return await ssh.execute(
            operation, client, command, dict(_environment(inputs)), previous, _stdin(inputs), output
        )
    finally:
        REMOTE_COMMANDS.discard(task)


async def execute_locally(
    operation: Operation, command: str, inputs: Properties, previous: Mapping[str, str], output: Output
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
        stdin.write(_stdin(inputs))
        try:
            await stdin.drain()
            stdin.close()
            await stdin.wait_closed()
        except ConnectionError:
            pass  # a command need not read its standard input

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


def _stdin(inputs: Properties) -> bytes:
    return str(inputs.get("stdin", "")).encode()


@dataclass(frozen=True)
class Command:
    """The resource type `command:remote:Command` or `command:local:Command`, which differ in `execute`."""

    token: str
    inputs: frozenset[str]
    execute: Execute

    def check(
        self, name: str, old: Properties, inputs: Properties, seed: bytes = b""
    ) -> tuple[Properties, Failures]:
        failures = self._unknown("", inputs, self.inputs)
        checked: Properties = {"addPreviousOutputInEnv": True, **inputs}
        if "connection" in self.inputs:
            checked["connection"] = self._check_connection(inputs, failures)
        logging = inputs.get("logging", "stdoutAndStderr")
        if logging not in LOGGED and logging != UNKNOWN:
            failures["logging"] = f"{logging} is not one of {', '.join(LOGGED)}"
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
            f"{path}{name}": f"unknown property of {self.token}: the sandbox's command provider does not support it"
            for name in sorted(given.keys() - known)
        }

    def diff(self, old_inputs: Properties, state: Properties, inputs: Properties) -> Diff:
        paths = {path: (before, after) for path, before, after in find_differences("", old_inputs, inputs)}
        return Diff(paths, frozenset({"triggers"} & {top_level(path) for path in paths}))

    def preview_outputs(self, state: Properties, old_inputs: Properties, inputs: Properties) -> Properties:
        return {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}

    async def create(self, operation: Operation, inputs: Properties) -> tuple[str, Properties]:
        state = await self._run(operation, inputs.get("create"), inputs, {"stdout": "", "stderr": ""})
        return f"{operation.name}{secrets.token_hex(4)}", state

    async def read(self, operation: Operation, resource_id: str, state: Properties) -> Properties:
        return state

    def inputs_from_state(self, inputs: Properties, state: Properties) -> Properties:
        return inputs

    async def update(
        self,
        operation: Operation,
        resource_id: str,
        state: Properties,
        old_inputs: Properties,
        inputs: Properties,
    ) -> Properties:
        return await self._run(operation, inputs.get("update", inputs.get("create")), inputs, state)

    async def delete(self, operation: Operation, resource_id: str, state: Properties) -> None:
        await self._run(operation, state.get("delete"), state, state)

    async def _run(
        self, operation: Operation, command: Value, inputs: Properties, before: Properties
    ) -> Properties:
        """Runs the command and returns the new state. `before` has the output of the previous run."""
        printed = {stream: before.get(stream, "") for stream in ("stdout", "stderr")}
        if command is None:
            return {**inputs, **printed}
        previous = {
            f"PULUMI_COMMAND_{stream.upper()}": str(text)
            for stream, text in printed.items()
            if text and inputs["addPreviousOutputInEnv"]
        }
        output = Output(operation, LOGGED[str(inputs.get("logging", "stdoutAndStderr"))])
        problem = await self.execute(operation, str(command), inputs, previous, output)
        await output.finish()
        if problem is not None:
            raise output.failure(problem, str(command))
        state = {**inputs, "stdout": output.text("stdout"), "stderr": output.text("stderr")}
        if "assetPaths" in inputs:
            state["assets"] = find_assets(Path(str(inputs.get("dir", "."))), inputs["assetPaths"])
        return state


RESOURCE_TYPES = {
    resource_type.token: resource_type
    for resource_type in (
        Command("command:remote:Command", COMMON_INPUTS | {"connection"}, execute_remotely),
        Command(
            "command:local:Command", COMMON_INPUTS | {"assetPaths", "dir", "interpreter"}, execute_locally
        ),
    )
}


class CommandProvider(Provider):
    name = "command"
    version = "1.2.1"
    resource_types = RESOURCE_TYPES
    accepts_secrets = True
    secret_properties = SECRET_PROPERTIES

    def can_be_cancelled(self, task: "asyncio.Task[Any]") -> bool:
        """As the official provider, which waits for the end of a remote command, however long it runs."""
        return task not in REMOTE_COMMANDS


main: Callable[[], None] = CommandProvider.main
