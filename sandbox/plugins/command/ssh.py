"""Connects and runs commands over SSH with the behaviour and error texts of Pulumi's official command provider."""

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
from sandbox.plugins.provider import Operation, ProviderError

T = TypeVar("T")

# The host key algorithms in the order of the official provider's SSH library. With an expected key, the official provider asks
# for a key of that kind only.
HOST_KEY_ORDER = [
    "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "rsa-sha2-256", "rsa-sha2-512", "ssh-ed25519",
]  # fmt: skip


# The bytes of standard input that sshd accepts before the command reads any.
SSHD_WINDOW = 2 * 1024 * 1024

ENVIRONMENT_REFUSED = (
    "Unable to set '{}'. This only works if your SSH server is configured to accept\n"
    "\tthese variables via AcceptEnv. Alternatively, if a Bash-like shell runs the command on the remote host, "
    "you could\n\tprefix the command itself with the variables in the form 'VAR=value command'"
)


@dataclass(frozen=True)
class Endpoint:
    """The address, login and dial limits of a `connection` or of its `proxy`."""

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
        """Returns the endpoint of a checked connection. A malformed key or an unreachable agent is an error here."""
        # An empty path in the connection is used too, and is no way to do without an agent.
        agent = connection.get("agentSocketPath")
        if agent is None:
            agent = os.environ.get("SSH_AUTH_SOCK") or None
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
    """Raises an error if no agent listens at the socket."""
    if not path:
        raise ProviderError("dial unix: missing address")
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError as problem:
        raise ProviderError(f"dial unix {path}: connect: {_error_text(problem)}") from problem


async def dial(operation: Operation, connection: Properties) -> asyncssh.SSHClientConnection:
    """Returns a connection to the machine, through the proxy if there is one. It stays open until the run ends."""
    target = Endpoint.of(connection)
    proxy_properties = connection.get("proxy")
    if not isinstance(proxy_properties, dict):
        connected = await _retry(operation, "Dial", target.dial_error_limit, lambda: _log_in(target))
        OPEN_CONNECTIONS.append(connected)
        return connected
    try:
        proxy = Endpoint.of(proxy_properties)
        through = await _retry(operation, "Dial proxy", proxy.dial_error_limit, lambda: _log_in(proxy))
        connected = await _dial_through(operation, through, target)
    except ProviderError as problem:
        raise ProviderError(f"proxy: {problem}") from problem
    OPEN_CONNECTIONS.append(connected)
    return connected


async def _dial_through(
    operation: Operation, proxy: asyncssh.SSHClientConnection, target: Endpoint
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
        # The official provider repeats a failed handshake on the same connection, which fails again.
        assert handshake is not None
        raise handshake

    connected = await _retry(operation, "Dial from proxy", target.dial_error_limit, connect)
    if connected is not None:
        return connected
    return await _retry(operation, "Dial", target.dial_error_limit, repeat_handshake)


class _DialError(Exception):
    """A failed attempt, with the text of the official provider."""


class _HandshakeError(_DialError):
    """The machine is reachable, but the login failed."""


async def _log_in(
    target: Endpoint, proxy: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    # The timeout covers the TCP connection only. A server that accepts and never answers makes this hang.
    connected = None if proxy is not None else await _connect(target)
    # Trusted host keys, trusted certificate authorities, revoked keys. None accepts any key.
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
            server_host_key_algs=[target.host_key.get_algorithm()] if target.host_key else HOST_KEY_ORDER,
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
        raise _DialError(f"dial tcp {target.address}: connect: {_error_text(problem)}") from problem


def _error_text(problem: OSError) -> str:
    return os.strerror(problem.errno).lower() if problem.errno else str(problem)


async def _retry(operation: Operation, what: str, limit: int, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeats `attempt` until it succeeds or fails more than `limit` times (-1: no limit). Waits 0.1 s to 5 s in between."""
    failures, delay = 0, 0.1
    while True:
        try:
            return await attempt()
        except _DialError as problem:
            if -1 < limit < failures + 1:
                raise ProviderError(f"after {failures} failed attempts: {problem}") from problem
            failures += 1
            await operation.status(f"{what} {failures}/{'inf' if limit == -1 else limit} failed: retrying")
            await asyncio.sleep(min(delay, 5.0))
            delay *= 1.5


async def execute(
    operation: Operation,
    client: asyncssh.SSHClientConnection,
    command: str,
    environment: dict[str, str],
    previous: Mapping[str, str],
    stdin: bytes,
    output: Output,
) -> str | None:
    """Runs a command on the machine. Returns the error, or None."""
    for name, value in environment.items():
        if not await _accepts_variable(client, name, value):
            await operation.error(ENVIRONMENT_REFUSED.format(name))
            raise ProviderError(f'could not set environment variable "{name}": ssh: setenv failed')
    for name, value in previous.items():
        if await _accepts_variable(client, name, value):
            environment[name] = value
        else:
            await operation.warn(ENVIRONMENT_REFUSED.format(name))
    process = await client.create_process(command, env=environment, encoding=None)
    unread = await _exchange(process, stdin, output)
    return _describe_failure(process) or ("EOF" if unread else None)


# The official provider leaves each connection open until the engine ends it.
OPEN_CONNECTIONS: list[asyncssh.SSHClientConnection] = []


async def _accepts_variable(client: asyncssh.SSHClientConnection, name: str, value: str) -> bool:
    """Returns whether sshd accepts the variable. asyncssh requests no answer, so this uses another channel."""
    channel = asyncssh.SSHClientChannel[bytes](
        client, asyncio.get_running_loop(), "strict", None, "strict", 1 << 21, 1 << 15
    )
    await channel._open(b"session")  # pyright: ignore[reportPrivateUsage]
    variable = String(name), String(value)
    accepted = await channel._make_request(b"env", *variable)  # pyright: ignore[reportPrivateUsage]
    channel.close()
    return bool(accepted)


async def _exchange(process: asyncssh.SSHClientProcess[bytes], stdin: bytes, output: Output) -> bool:
    """Sends standard input and collects the output until the command ends. Returns whether it left input unread."""

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


def _describe_failure(process: asyncssh.SSHClientProcess[bytes]) -> str | None:
    """Returns the official provider's text for a command with another exit code than 0, or None."""
    if process.exit_signal is not None:
        name, _, message, _ = process.exit_signal
        number = getattr(signal, f"SIG{name}", None)
        status = 128 + int(number) if number is not None else 0
        reason = f". Reason was: {message}" if message else ""
        return f"Process exited with status {status} from signal {name}{reason}"
    if process.exit_status is None:
        return "wait: remote command exited without exit status or exit signal"
    return f"Process exited with status {process.exit_status}" if process.exit_status else None
