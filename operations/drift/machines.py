"""Finds differences on machines: runs find-drift.sh on each over SSH and reads its output."""

import asyncio
import re
import shlex
from collections.abc import Sequence

import asyncssh

from operations.drift.findings import Difference, Unreachable
from operations.drift.redaction import redact_passwords
from operations.stack_state import Connection, Machine

LOGIN_TIMEOUT = 8
"""Seconds."""
CHECK_TIMEOUT = 20
"""Seconds for the check of one machine."""

NO_ANSWER = "no answer in time"

_ALSO_RUN = {"deploy-certificate.sh": ("restore-certificate.sh",)}
"""Scripts to run again with another one. restore-certificate.sh runs before HAProxy reads its files: a broken
certificate would fail that step."""


def read_machine(machine: Machine, output: str) -> list[Difference]:
    """Reads the output of find-drift.sh."""
    blocks = re.split(r"(?m)^=== (\S+)\n", output)[1:]
    steps = {step.script: step for step in machine.steps}
    return [
        Difference(
            machine.name,
            steps[script].name,
            script,
            [redact_passwords(line) for line in lines.splitlines()],
            tuple(steps[name].urn for name in (script, *_ALSO_RUN.get(script, ())) if name in steps),
        )
        for script, lines in zip(blocks[::2], blocks[1::2], strict=True)
    ]


async def check_machines(machines: Sequence[Machine]) -> list[list[Difference] | Unreachable]:
    """Checks all machines at the same time. The load balancer is the jump host for the others."""
    balancer = next((machine for machine in machines if not machine.behind_balancer), None)
    if balancer is None:
        reason = "the state has no load balancer, which is the jump host"
        return [Unreachable(machine.name, reason) for machine in machines]
    balancer_login = asyncio.create_task(_log_in(balancer.connection))

    async def check(machine: Machine) -> list[Difference] | Unreachable:
        try:
            connection = await balancer_login
        except (OSError, TimeoutError, asyncssh.Error) as error:
            failed_jump = f"its jump host {balancer.name} is unreachable"
            return Unreachable(
                machine.name, explain_failure(machine, error) if machine is balancer else failed_jump
            )
        try:
            if machine is not balancer:
                connection = await _log_in(machine.connection, connection)
            return await _check_machine(machine, connection)
        except (OSError, TimeoutError, asyncssh.Error) as error:
            return Unreachable(machine.name, explain_failure(machine, error))

    return await asyncio.gather(*(check(machine) for machine in machines))


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


async def _check_machine(
    machine: Machine, connection: asyncssh.SSHClientConnection
) -> list[Difference] | Unreachable:
    script = machine.find_drift_script
    if script is None:
        return Unreachable(machine.name, "find-drift.sh is not deployed yet; the next update installs it")
    seconds = CHECK_TIMEOUT - 2
    scripts = [step.script for step in machine.steps]
    command = shlex.join(["sudo", "timeout", str(seconds), "bash", "-c", script, "find-drift.sh", *scripts])
    async with asyncio.timeout(CHECK_TIMEOUT):
        run = await connection.run(command, input=machine.deployed_files, errors="replace")
    if run.exit_status == 124:
        return Unreachable(machine.name, f"find-drift.sh took longer than {seconds} seconds")
    if run.exit_status != 0:
        last_line = str(run.stderr).strip().splitlines()[-1:]
        return Unreachable(machine.name, *last_line or [f"find-drift.sh failed with {run.exit_status}"])
    return read_machine(machine, str(run.stdout))


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
