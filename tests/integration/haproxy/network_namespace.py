"""Network namespaces for the tests: real ports and node addresses, without a route out of the machine."""

import ctypes
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _raise_on_error(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)} (the tests' network namespaces need root)")


@contextmanager
def _enter(namespace: IO[str]) -> Generator[None]:
    """Moves the calling thread, and with it the processes and sockets that it creates, into a network namespace."""
    with Path("/proc/thread-self/ns/net").open() as home:
        _raise_on_error(_libc.setns(namespace.fileno(), _CLONE_NEWNET))
        try:
            yield
        finally:
            _raise_on_error(_libc.setns(home.fileno(), _CLONE_NEWNET))


@contextmanager
def _new_namespace() -> Generator[IO[str]]:
    with Path("/proc/thread-self/ns/net").open() as home:
        _raise_on_error(_libc.unshare(_CLONE_NEWNET))
        try:
            _ip("link set lo up")
            namespace = Path("/proc/thread-self/ns/net").open()  # noqa: SIM115 - closed below
        finally:
            _raise_on_error(_libc.setns(home.fileno(), _CLONE_NEWNET))
    with namespace:
        yield namespace


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _nft(ruleset: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, check=True)


class Network:
    """The network of the nodes. It is another one than the balancer's because both listen on the same ports."""

    def __init__(self, nodes: IO[str]) -> None:
        self._nodes = nodes

    @contextmanager
    def enter_nodes(self) -> Generator[None]:
        """Moves the calling thread to the network of the nodes."""
        with _enter(self._nodes):
            yield

    @contextmanager
    def cut_off(self, *nodes: str) -> Generator[None]:
        """Drops all packets from and to the addresses of nodes, as when their machines die."""
        addresses = f"{{ {', '.join(nodes)} }}"
        with self.enter_nodes():
            _nft(
                f"""table inet cut_off {{
                    chain input {{ type filter hook input priority 0; ip daddr {addresses} drop; }}
                    chain output {{ type filter hook output priority 0; ip saddr {addresses} drop; }}
                }}"""
            )
        try:
            yield
        finally:
            with self.enter_nodes():
                _nft("delete table inet cut_off")


@contextmanager
def separate_networks(balancer: str, nodes: list[str], clients: list[str]) -> Generator[Network]:
    """Creates both networks and moves the calling thread to that of the balancer and its clients."""
    with (
        _new_namespace() as balancer_namespace,
        _new_namespace() as node_namespace,
        _enter(balancer_namespace),
    ):
        _ip(
            f"link add nodes type veth peer name balancer netns /proc/{os.getpid()}/fd/{node_namespace.fileno()}"
        )
        _ip(f"address add {balancer}/16 dev nodes")
        _ip("link set nodes up")
        for client in clients:
            _ip(f"address add {client}/32 dev lo")
        with _enter(node_namespace):
            for node in nodes:
                _ip(f"address add {node}/16 dev balancer")
            _ip("link set balancer up")
        yield Network(node_namespace)
