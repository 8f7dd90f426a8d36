"""Runs the gRPC server of a plugin on a free port and prints the port, as the engine expects."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Pulumi's own limit. gRPC's default of 4 MiB is too small for a large state.
MESSAGE_LIMIT = 400 * 1024 * 1024
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", MESSAGE_LIMIT)]


async def _finish_nothing() -> None:
    """The default for plugins without programs of their own."""


def serve(
    register: Callable[[grpc.aio.Server], None], finish: Callable[[], Awaitable[None]] = _finish_nothing
) -> None:
    """Serves until the engine sends SIGTERM or SIGINT, then runs `finish` and exits without output."""
    asyncio.run(_serve(register, finish))


async def _serve(register: Callable[[grpc.aio.Server], None], finish: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await ended.wait()
    await server.stop(grace=0)
    await finish()
    # A normal exit would print errors of cancelled gRPC calls.
    os._exit(0)
