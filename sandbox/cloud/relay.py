"""The two ways between the host and the cloud, neither of them a route.

From machines to the servers of their packages, and from the host's loopback address to the cluster. Bytes are carried by
a process with sockets on both sides, so the host's interfaces, routes and sysctls stay as they are.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import DNSRecord

from sandbox.cloud import addresses, host
from sandbox.cloud.apt import Upstream
from sandbox.cloud.network import package_address
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

FORWARDED_PORTS = (80, 443, 1935, 4444, 5080, 5443, 6080)
ENTRANCES = host.STATE / "entrances"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Entrance:
    """The loopback address of a cluster that is not the first, as its stack's file among ``ENTRANCES`` says."""

    address: str
    domain: str


@dataclass(frozen=True)
class Relay:
    """Lives on the host's network and steps into the cloud's for the moment it takes to make a socket."""

    host_network: int
    cloud_network: int

    @contextlib.contextmanager
    def _inside(self) -> Generator[None]:
        setns(self.cloud_network, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self.host_network, CLONE_NEWNET)

    async def serve(self, upstreams: Sequence[Upstream], forwarders: Sequence[socket.socket]) -> None:
        """Carries bytes until it is cancelled."""
        for number, server in enumerate(sorted({upstream.host for upstream in upstreams})):
            for upstream in upstreams:
                if upstream.host == server:
                    with self._inside():
                        listener = socket.create_server((package_address(number), upstream.port), backlog=128)
                    await asyncio.start_server(_carry(self._to_upstream(upstream)), sock=listener)
        await self._lead_to(addresses.ENTRANCE, forwarders)
        await self._follow_entrances()

    async def _lead_to(self, name: str, forwarders: Sequence[socket.socket]) -> list[asyncio.Server]:
        return [
            await asyncio.start_server(_carry(self._to(name, listener.getsockname()[1])), sock=listener)
            for listener in forwarders
        ]

    async def _follow_entrances(self) -> None:
        """Further clusters have an address each, for as long as there is a file that says so."""
        open_entrances: dict[Entrance, list[asyncio.Server]] = {}
        while True:
            wanted = read_entrances()
            for entrance in open_entrances.keys() - wanted:
                for server in open_entrances.pop(entrance):
                    server.close()
            for entrance in wanted - open_entrances.keys():
                try:
                    listeners = listen_on_loopback(entrance.address)
                except OSError as error:  # somebody else was quicker
                    print(error.strerror, file=sys.stderr, flush=True)
                    listeners = []
                open_entrances[entrance] = await self._lead_to(entrance.domain, listeners)
            await asyncio.sleep(0.5)

    def _to_upstream(self, upstream: Upstream) -> Callable[[], Awaitable[Streams]]:
        return lambda: asyncio.open_connection(upstream.host, upstream.port)

    def _to(self, name: str, port: int) -> Callable[[], Awaitable[Streams]]:
        async def connect() -> Streams:
            address = await asyncio.to_thread(self._resolve, name)
            with self._inside():
                side = socket.socket()
            side.setblocking(False)
            try:
                async with asyncio.timeout(10):
                    await asyncio.get_running_loop().sock_connect(side, (address, port))
            except BaseException:
                side.close()
                raise
            return await asyncio.open_connection(sock=side)

        return connect

    def _resolve(self, name: str) -> str:
        """Where a cluster's name leads, asked of the cloud's DNS."""
        question = DNSRecord.question(name)
        # This thread's network only; it was made from one that is on the host's.
        with self._inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as side:
            side.settimeout(2)
            side.sendto(question.pack(), (addresses.DNS, 53))
            answer = DNSRecord.parse(side.recv(4096))
        if not answer.rr:
            raise ConnectionRefusedError(f"{name} is not in the cloud's DNS yet")
        return str(answer.rr[-1].rdata)


def _carry(
    connect: Callable[[], Awaitable[Streams]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await connect()
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        far_writer.close()
        writer.close()

    return carry


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction. The end of it is passed on, so the other may still go on; a broken connection breaks both."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def read_entrances() -> set[Entrance]:
    return {Entrance(*path.read_text().split()) for path in _files_of_entrances()}


def open_entrance(stack: str, domain: str) -> Entrance:
    """The stack's entrance; one that has none gets the first address that is free."""
    path = ENTRANCES / stack
    taken = {Entrance(*other.read_text().split()).address for other in _files_of_entrances() if other != path}
    own = Entrance(*path.read_text().split()).address if path.exists() else None
    address = own or next(
        address for address in _further_addresses() if address not in taken and _is_free(address)
    )
    ENTRANCES.mkdir(exist_ok=True)
    unfinished = ENTRANCES.with_suffix(".new")
    unfinished.write_text(f"{address} {domain}\n")
    unfinished.rename(path)
    return Entrance(address, domain)


def _files_of_entrances() -> list[Path]:
    return list(ENTRANCES.iterdir()) if ENTRANCES.exists() else []


def _further_addresses() -> Iterator[str]:
    """Of the sandbox at 127.77.0.1 they are 127.77.1.1 and so on, that of one at 127.77.0.2 others."""
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
    """The host's side of the forwarder; made by whoever is still on the host's network."""
    listeners: list[socket.socket] = []
    for port in FORWARDED_PORTS:
        try:
            listeners.append(socket.create_server((address, port), backlog=128))
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise OSError(
                error.errno,
                f"{address}:{port}, where the cluster should answer on this machine, cannot be had"
                f" ({os.strerror(error.errno or 0)}): free it or choose another address with SANDBOX_ADDRESS=127.77.0.2",
            ) from error
    return listeners
