"""A network of the tests' own: the real ports, the real node addresses, and no way out of the machine."""

import ctypes
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)} (the tests' network namespaces need root)")


@contextmanager
def _entered(namespace: IO[str]) -> Generator[None]:
    """The calling thread, and whatever it starts or opens, in that network namespace."""
    with Path("/proc/thread-self/ns/net").open() as home:
        _check(_libc.setns(namespace.fileno(), _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(home.fileno(), _CLONE_NEWNET))


@contextmanager
def _created() -> Generator[IO[str]]:
    with Path("/proc/thread-self/ns/net").open() as home:
        _check(_libc.unshare(_CLONE_NEWNET))
        try:
            _ip("link set lo up")
            namespace = Path("/proc/thread-self/ns/net").open()  # noqa: SIM115 - closed below, when its user is done
        finally:
            _check(_libc.setns(home.fileno(), _CLONE_NEWNET))
    with namespace:
        yield namespace


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


class Network:
    """The balancer's network, and the nodes' behind it: both listen on the same ports."""

    def __init__(self, nodes: IO[str]) -> None:
        self._nodes = nodes

    @contextmanager
    def at_nodes(self) -> Generator[None]:
        with _entered(self._nodes):
            yield


@contextmanager
def own_network(balancer: str, nodes: list[str], clients: list[str]) -> Generator[Network]:
    """Puts the calling thread where the balancer and its clients are."""
    with _created() as ours, _created() as theirs, _entered(ours):
        _ip(f"link add nodes type veth peer name balancer netns /proc/{os.getpid()}/fd/{theirs.fileno()}")
        _ip(f"address add {balancer}/16 dev nodes")
        _ip("link set nodes up")
        for client in clients:
            _ip(f"address add {client}/32 dev lo")
        with _entered(theirs):
            for node in nodes:
                _ip(f"address add {node}/16 dev balancer")
            _ip("link set balancer up")
        yield Network(theirs)
