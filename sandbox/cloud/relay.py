"""Relays TCP connections between host and cloud: machines reach package servers, and loopback addresses lead to clusters.

The relay process has sockets on both sides, so the host's interfaces, routes and sysctls do not change.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from dnslib import DNSRecord

from sandbox.cloud import addresses, host
from sandbox.cloud.apt import Upstream
from sandbox.cloud.network import package_address
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

FORWARDED_PORTS = (80, 443, 1935, 1936, 4444, 5080, 5443, 6080)
STACK_ADDRESSES = host.STATE / "stack-addresses"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class StackAddress:
    """The loopback address and domain of a test cluster, from the stack's file in `STACK_ADDRESSES`."""

    address: str
    domain: str


@dataclass(frozen=True)
class Relay:
    """Runs in the host's network namespace; enters the cloud's only while it creates a socket."""

    host_network: int
    cloud_network: int

    @contextlib.contextmanager
    def _in_cloud_network(self) -> Generator[None]:
        setns(self.cloud_network, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self.host_network, CLONE_NEWNET)

    async def serve(self, upstreams: Sequence[Upstream], forwarders: Sequence[socket.socket]) -> None:
        """Relays connections until it is cancelled."""
        for number, server in enumerate(sorted({upstream.host for upstream in upstreams})):
            for upstream in upstreams:
                if upstream.host == server:
                    with self._in_cloud_network():
                        listener = socket.create_server((package_address(number), upstream.port), backlog=128)
                    await asyncio.start_server(_relay_to(self._connect_to_upstream(upstream)), sock=listener)
        await self._forward_to(addresses.DOMAIN, forwarders)
        await self._follow_stack_addresses()

    async def _forward_to(self, name: str, forwarders: Sequence[socket.socket]) -> list[asyncio.Server]:
        return [
            await asyncio.start_server(
                _relay_to(self._connect_to(name, listener.getsockname()[1])), sock=listener
            )
            for listener in forwarders
        ]

    async def _follow_stack_addresses(self) -> None:
        """Starts and stops forwarding as files of stack addresses appear and disappear."""
        servers: dict[StackAddress, list[asyncio.Server]] = {}
        while True:
            wanted = set(read_stack_addresses().values())
            for stack_address in servers.keys() - wanted:
                for server in servers.pop(stack_address):
                    server.close()
            for stack_address in wanted - servers.keys():
                try:
                    listeners = listen_on_loopback(stack_address.address)
                except OSError as error:  # another process took the address
                    print(error.strerror, file=sys.stderr, flush=True)
                    listeners = []
                servers[stack_address] = await self._forward_to(stack_address.domain, listeners)
            await asyncio.sleep(0.5)

    def _connect_to_upstream(self, upstream: Upstream) -> Callable[[], Awaitable[Streams]]:
        return lambda: asyncio.open_connection(upstream.host, upstream.port)

    def _connect_to(self, name: str, port: int) -> Callable[[], Awaitable[Streams]]:
        async def connect() -> Streams:
            address = await asyncio.to_thread(self._resolve, name)
            with self._in_cloud_network():
                side = socket.socket()
            side.setblocking(False)
            try:
                async with asyncio.timeout(30):
                    await asyncio.get_running_loop().sock_connect(side, (address, port))
            except BaseException:
                side.close()
                raise
            return await asyncio.open_connection(sock=side)

        return connect

    def _resolve(self, name: str) -> str:
        """Resolves a cluster's domain with the cloud's DNS."""
        question = DNSRecord.question(name)
        # setns changes the calling thread only.
        with self._in_cloud_network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as side:
            side.settimeout(30)  # no packet gets lost here, but the daemon that answers may be busy
            side.sendto(question.pack(), (addresses.DNS, 53))
            answer = DNSRecord.parse(side.recv(4096))
        if not answer.rr:
            raise ConnectionRefusedError(f"{name} does not exist in the cloud's DNS yet")
        return str(answer.rr[-1].rdata)


def _relay_to(
    connect: Callable[[], Awaitable[Streams]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            remote_reader, remote_writer = await connect()
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, remote_writer), _copy(remote_reader, writer))
        remote_writer.close()
        writer.close()

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction of a connection; half-closes the other side at the end, aborts it on an error."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def read_stack_addresses() -> dict[str, StackAddress]:
    """Returns the addresses of all test clusters by stack."""
    files = STACK_ADDRESSES.iterdir() if STACK_ADDRESSES.exists() else ()
    return {path.name: StackAddress(*path.read_text().split()) for path in files}


def assign_address(stack: str, domain: str) -> StackAddress:
    """Returns the stack's loopback address; assigns the first free one if it has none."""
    assigned = read_stack_addresses()
    own = assigned.pop(stack, None)
    taken = {other.address for other in assigned.values()}
    address = (
        own.address
        if own
        else next(address for address in _candidate_addresses() if address not in taken and _is_free(address))
    )
    STACK_ADDRESSES.mkdir(exist_ok=True)
    unfinished = STACK_ADDRESSES.with_suffix(".new")
    unfinished.write_text(f"{address} {domain}\n")
    unfinished.rename(STACK_ADDRESSES / stack)
    return StackAddress(address, domain)


def _candidate_addresses() -> Iterator[str]:
    """Yields 127.77.1.1, 127.77.1.2, … for a sandbox at 127.77.0.1, and another range for one at 127.77.0.2."""
    first, second, third, fourth = IPv4Address(host.LOOPBACK_ADDRESS).packed
    return (f"{first}.{second}.{(third + fourth) % 256}.{number}" for number in range(1, 255))


def _is_free(address: str) -> bool:
    try:
        listeners = listen_on_loopback(address)
    except OSError:
        return False
    for listener in listeners:
        listener.close()
    return True


def listen_on_loopback(address: str) -> list[socket.socket]:
    """Returns listening sockets on all forwarded ports. The caller must be in the host's network namespace."""
    listeners: list[socket.socket] = []
    for port in FORWARDED_PORTS:
        try:
            listeners.append(socket.create_server((address, port), backlog=128))
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise OSError(
                error.errno,
                f"cannot listen on {address}:{port} for the cluster ({os.strerror(error.errno or 0)}):"
                " free the port or choose another address with SANDBOX_ADDRESS=127.77.0.2",
            ) from error
    return listeners
