"""Copies of the cluster registry."""

import asyncio
import os
import sys
from pathlib import Path

import asyncssh

from cluster.address_plan import Role
from cluster.machine_scripts import INSTALLED_SCRIPTS
from operations.engine import run_pulumi
from operations.ssh import CheckError, Failed, visit_machines
from operations.stack_state import Machine, StackState, read_stack_state

INSTALLER = "install-valkey.sh"
"""The step that prints the registry's id."""
TIMEOUT = 300
"""Seconds."""


def back_up(stack: str, file: Path) -> str:
    """Writes a backup, which only its owner may read: it holds the settings of the applications with their secrets."""
    state, database = _find_database(stack)
    try:
        # A backup is never overwritten.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        sys.exit(f"{file}: {error.strerror}; give the path of a new file.")
    with os.fdopen(descriptor, "wb") as target:
        try:
            target.write(_run_script(state, database, "back-up-registry.sh"))
        except BaseException:
            file.unlink()
            raise
    return f"Wrote {file} ({file.stat().st_size} bytes). Keep it secret: it holds the applications' settings."


def restore(stack: str, file: Path) -> str:
    """Replaces the registry's data by that of a backup, and marks the step that reports it in the state."""
    state, database = _find_database(stack)
    try:
        content = file.read_bytes()
    except OSError as error:
        sys.exit(f"{file}: {error.strerror}; give the path of a backup.")
    result = _run_script(state, database, "restore-registry.sh", content).decode().strip()
    (step,) = (step for step in database.steps if step.script == INSTALLER)
    run_pulumi("state", "taint", "--yes", "--stack", stack, step.urn, folder=Path())
    return (
        f"{result}. Now run make up STACK={stack}: it drains and restarts the nodes, "
        "so that they register their live streams in it."
    )


def _find_database(stack: str) -> tuple[StackState, Machine]:
    exported = run_pulumi("stack", "export", "--show-secrets", "--stack", stack, folder=Path())
    state = read_stack_state(exported)
    for machine in state.machines:
        if machine.name == Role.DATABASE:
            return state, machine
    if not state.machines:
        sys.exit("There is no cluster yet: run make up first.")
    sys.exit(
        f"The stack {stack} has no database machine. If its databaseUrl is set, use the tools of that database. "
        "A single node without one has no cluster registry."
    )


def _run_script(state: StackState, database: Machine, script: str, stdin: bytes = b"") -> bytes:
    async def run(machine: Machine, connection: asyncssh.SSHClientConnection) -> bytes:
        if f"=== {script}\n" not in machine.deployed_files:
            raise CheckError(f"{script} is not deployed yet; make up installs it")
        command = f"sudo timeout {TIMEOUT - 10} {INSTALLED_SCRIPTS}/{script}"
        async with asyncio.timeout(TIMEOUT):
            done = await connection.run(command, input=stdin, encoding=None)
        output, errors = done.stdout, done.stderr
        # asyncssh types them as text or bytes. With `encoding=None` they are bytes.
        assert isinstance(output, bytes)
        assert isinstance(errors, bytes)
        if done.exit_status != 0:
            raise CheckError(
                errors.decode(errors="replace").strip() or f"{script} failed with {done.exit_status}"
            )
        return output

    (result,) = asyncio.run(visit_machines(state.machines, run, [database]))
    if isinstance(result, Failed):
        sys.exit(f"{database.name}: {result.reason}")
    return result
