"""Runs checks on a stack's machines over SSH. The load balancer is the jump host for the others."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import asyncssh

from operations.stack_state import Connection, Machine

T = TypeVar("T")

LOGIN_TIMEOUT = 8
"""Seconds."""

NO_ANSWER = "no answer in time"


@dataclass(frozen=True)
class Failed:
    """The result of a machine that could not be reached or checked."""

    reason: str


class CheckError(Exception):
    """Raised by a check that could not be made. Its text is the reason."""


async def visit_machines(
    machines: Sequence[Machine],
    check: Callable[[Machine, asyncssh.SSHClientConnection], Awaitable[T]],
    visited: Sequence[Machine] | None = None,
) -> list[T | Failed]:
    """Runs a check on all machines, or on those in `visited`, at the same time. Returns the results in the same order."""
    if visited is None:
        visited = machines
    balancer = next((machine for machine in machines if not machine.behind_balancer), None)
    if balancer is None:
        return [Failed("the state has no load balancer, which is the jump host") for _ in visited]
    balancer_login = asyncio.create_task(_log_in(balancer.connection))

    async def visit(machine: Machine) -> T | Failed:
        try:
            connection = await balancer_login
        except (OSError, TimeoutError, asyncssh.Error) as error:
            failed_jump = f"its jump host {balancer.name} is unreachable"
            return Failed(explain_failure(machine, error) if machine is balancer else failed_jump)
        try:
            if machine is not balancer:
                connection = await _log_in(machine.connection, connection)
            return await check(machine, connection)
        except (OSError, TimeoutError, asyncssh.Error, CheckError) as error:
            return Failed(explain_failure(machine, error))

    return await asyncio.gather(*(visit(machine) for machine in visited))


async def _log_in(
    target: Connection, jump_host: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    async with asyncio.timeout(LOGIN_TIMEOUT):
        return await asyncssh.connect(
            target.host,
            target.port,
            tunnel=jump_host or (),
            config=None,
            username=target.user,
            client_keys=[asyncssh.import_private_key(target.private_key)],
            known_hosts=([asyncssh.import_public_key(target.host_key)], [], []),
            agent_path=None,
        )


def explain_failure(machine: Machine, error: Exception) -> str:
    """Returns the reason why a machine could not be checked, with a remedy where there is one."""
    match error:
        case TimeoutError():
            return NO_ANSWER
        case asyncssh.HostKeyNotVerifiable():
            return "its SSH host key is not the one of this stack"
        case asyncssh.PermissionDenied():
            stack = machine.urn.split(":")[2]
            return (
                "it rejects the stack's SSH key, so an update cannot restore it; to replace it, run: "
                f"pulumi state taint --stack {stack} {shlex.quote(machine.urn)}, then make up STACK={stack}"
            )
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


def last_line(text: object) -> str:
    """Returns the last line of a program's output."""
    lines = str(text).strip().splitlines()
    return lines[-1] if lines else ""
