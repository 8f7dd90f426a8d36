"""Dialling and running over SSH as Pulumi's official command provider does, down to its words when it fails."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import asyncssh
from asyncssh.packet import String

from sandbox.plugins.command.output import LINE_LIMIT, Output
from sandbox.plugins.properties import Properties
from sandbox.plugins.provider import ProviderError, Run

T = TypeVar("T")

# The order in which the official provider's SSH library asks for a host key. It does not look at which key is
# expected: a machine that also has an ECDSA or RSA key shows that one, and fails a check against its ed25519 key.
HOST_KEY_ORDER = [
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "rsa-sha2-256", "rsa-sha2-512", "ssh-ed25519",
]  # fmt: skip


# What sshd takes of standard input before the command reads any of it.
SSHD_WINDOW = 2 * 1024 * 1024

ENVIRONMENT_REFUSED = (
    "Unable to set '{}'. This only works if your SSH server is configured to accept\n"
    "\tthese variables via AcceptEnv. Alternatively, if a Bash-like shell runs the command on the remote host, "
    "you could\n\tprefix the command itself with the variables in the form 'VAR=value command'"
)


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in: a `connection`, or its `proxy`."""

    host: str
    port: int
    user: str
    password: str | None
    private_key: asyncssh.SSHKey | None
    host_key: asyncssh.SSHKey | None
    agent: str | None
    dial_error_limit: int
    per_dial_timeout: int

    @classmethod
    def of(cls, connection: Properties) -> "Endpoint":
        """Reads what `check` has completed. A bad key or a dead agent fails here, before any dialling."""
        agent = connection.get("agentSocketPath") or os.environ.get("SSH_AUTH_SOCK") or None
        if agent is not None:
            _require_agent(str(agent))
        return cls(
            host=str(connection["host"]),
            port=int(str(connection["port"])),
            user=str(connection["user"]),
            password=_text(connection, "password"),
            private_key=_private_key(
                _text(connection, "privateKey"), _text(connection, "privateKeyPassword")
            ),
            host_key=_host_key(_text(connection, "hostKey")),
            agent=None if agent is None else str(agent),
            dial_error_limit=int(str(connection["dialErrorLimit"])),
            per_dial_timeout=int(str(connection["perDialTimeout"])),
        )

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _text(connection: Properties, name: str) -> str | None:
    value = connection.get(name)
    return None if value is None else str(value)


def _private_key(text: str | None, password: str | None) -> asyncssh.SSHKey | None:
    if text is None:
        return None
    try:
        return asyncssh.import_private_key(text, password)
    except asyncssh.KeyImportError as problem:
        raise ProviderError(f"ssh: {problem}") from problem


def _host_key(line: str | None) -> asyncssh.SSHKey | None:
    if line is None:
        return None
    try:
        return asyncssh.import_public_key(line)
    except asyncssh.KeyImportError as problem:
        raise ProviderError("failed to parse host key: ssh: no key found") from problem


def _require_agent(path: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError as problem:
        raise ProviderError(f"dial unix {path}: connect: {_reason(problem)}") from problem


async def dial(run: Run, connection: Properties) -> asyncssh.SSHClientConnection:
    """A connection to the machine, by way of the proxy if there is one. It stays open until the run ends."""
    target = Endpoint.of(connection)
    proxy_properties = connection.get("proxy")
    if not isinstance(proxy_properties, dict):
        return await _retried(run, "Dial", target.dial_error_limit, lambda: _log_in(target))
    try:
        proxy = Endpoint.of(proxy_properties)
        through = await _retried(run, "Dial proxy", proxy.dial_error_limit, lambda: _log_in(proxy))
        return await _dial_through(run, through, target)
    except ProviderError as problem:
        raise ProviderError(f"proxy: {problem}") from problem


async def _dial_through(
    run: Run, proxy: asyncssh.SSHClientConnection, target: Endpoint
) -> asyncssh.SSHClientConnection:
    handshake: _HandshakeError | None = None

    async def connect() -> asyncssh.SSHClientConnection | None:
        nonlocal handshake
        try:
            return await _log_in(target, proxy)
        except _HandshakeError as problem:
            handshake = problem
            return None

    async def repeat_handshake() -> asyncssh.SSHClientConnection:
        # The official provider repeats the handshake on the connection that it has just spoilt: in vain.
        assert handshake is not None
        raise handshake

    connected = await _retried(run, "Dial from proxy", target.dial_error_limit, connect)
    if connected is not None:
        return connected
    return await _retried(run, "Dial", target.dial_error_limit, repeat_handshake)


class _DialError(Exception):
    """One attempt failed; its text is what the official provider would say."""


class _HandshakeError(_DialError):
    """The machine was reached, but logging in failed."""


async def _log_in(
    target: Endpoint, proxy: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    # The time limit covers the TCP connection alone: a server that accepts and says nothing is waited for, for ever.
    connected = None if proxy is not None else await _connect(target)
    # Keys trusted for the machine, keys trusted to certify it, keys revoked; None takes any.
    trusted: tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]] | None = (
        None if target.host_key is None else ([target.host_key], [], [])
    )
    try:
        return await asyncssh.connect(
            target.host,
            target.port,
            sock=connected,
            tunnel=proxy,
            config=None,
            username=target.user,
            password=target.password,
            client_keys=[target.private_key] if target.private_key else None,
            agent_path=target.agent,
            known_hosts=trusted,
            server_host_key_algs=HOST_KEY_ORDER,
            login_timeout=0,
            keepalive_interval=0,
            client_version="Go",
        )
    except asyncssh.ChannelOpenError as problem:
        raise _DialError(f"ssh: rejected: connect failed ({problem.reason})") from problem
    except asyncssh.HostKeyNotVerifiable as problem:
        raise _HandshakeError("ssh: handshake failed: ssh: host key mismatch") from problem
    except asyncssh.PermissionDenied as problem:
        methods = ["none", *["publickey"] * bool(target.private_key), *["password"] * bool(target.password)]
        raise _HandshakeError(
            "ssh: handshake failed: ssh: unable to authenticate, attempted methods "
            f"[{' '.join(methods)}], no supported methods remain"
        ) from problem
    except (asyncssh.ConnectionLost, ConnectionError) as problem:
        raise _HandshakeError("ssh: handshake failed: EOF") from problem
    except asyncssh.Error as problem:
        raise _HandshakeError(f"ssh: handshake failed: {problem}") from problem


async def _connect(target: Endpoint) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(target.per_dial_timeout or None):
            addresses = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = addresses[0]
            connected = socket.socket(family, kind, protocol)
            connected.setblocking(False)
            try:
                await loop.sock_connect(connected, address)
            except BaseException:
                connected.close()
                raise
            return connected
    except TimeoutError as problem:
        raise _DialError(f"dial tcp {target.address}: i/o timeout") from problem
    except socket.gaierror as problem:
        raise _DialError(f"dial tcp: lookup {target.host}: no such host") from problem
    except OSError as problem:
        raise _DialError(f"dial tcp {target.address}: connect: {_reason(problem)}") from problem


def _reason(problem: OSError) -> str:
    return os.strerror(problem.errno).lower() if problem.errno else str(problem)


async def _retried(run: Run, what: str, limit: int, attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries until it works or `limit` failures are exceeded (-1: never), waiting 0.1 s at first and 5 s at most."""
    failures, delay = 0, 0.1
    while True:
        try:
            return await attempt()
        except _DialError as problem:
            if -1 < limit < failures + 1:
                raise ProviderError(f"after {failures} failed attempts: {problem}") from problem
            failures += 1
            await run.status(f"{what} {failures}/{'inf' if limit == -1 else limit} failed: retrying")
            await asyncio.sleep(min(delay, 5.0))
            delay *= 1.5


async def execute(
    run: Run,
    connection: Properties,
    command: str,
    environment: dict[str, str],
    previous: Mapping[str, str],
    stdin: bytes,
    output: Output,
) -> str | None:
    """Runs a command on the machine; says what went wrong, if anything did."""
    client = await dial(run, connection)
    OPEN_CONNECTIONS.append(client)
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
    unread = await _converse(process, stdin, output)
    return _ended_badly(process) or ("EOF" if unread else None)


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


def _ended_badly(process: asyncssh.SSHClientProcess[bytes]) -> str | None:
    """The words of the official provider for a command that did not end with status 0."""
    if process.exit_signal is not None:
        name, _, message, _ = process.exit_signal
        number = getattr(signal, f"SIG{name}", None)
        status = 128 + int(number) if number is not None else 0
        reason = f". Reason was: {message}" if message else ""
        return f"Process exited with status {status} from signal {name}{reason}"
    if process.exit_status is None:
        return "wait: remote command exited without exit status or exit signal"
    return f"Process exited with status {process.exit_status}" if process.exit_status else None
