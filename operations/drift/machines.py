"""Finds differences on machines: runs find-drift.sh on each over SSH and reads its output."""

import asyncio
import re
import shlex
from collections.abc import Sequence

import asyncssh

from operations.drift.findings import Difference, Unreachable
from operations.drift.redaction import redact_passwords
from operations.ssh import CheckError, Failed, last_line, visit_machines
from operations.stack_state import Machine

CHECK_TIMEOUT = 20
"""Seconds for the check of one machine."""

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
    """Checks all machines at the same time."""
    results = await visit_machines(machines, _check_machine)
    return [
        Unreachable(machine.name, result.reason) if isinstance(result, Failed) else result
        for machine, result in zip(machines, results, strict=True)
    ]


async def _check_machine(machine: Machine, connection: asyncssh.SSHClientConnection) -> list[Difference]:
    script = machine.find_drift_script
    if script is None:
        raise CheckError("find-drift.sh is not deployed yet; the next update installs it")
    seconds = CHECK_TIMEOUT - 2
    scripts = dict.fromkeys(step.script for step in machine.steps)
    command = shlex.join(["sudo", "timeout", str(seconds), "bash", "-c", script, "find-drift.sh", *scripts])
    async with asyncio.timeout(CHECK_TIMEOUT):
        run = await connection.run(command, input=machine.deployed_files, errors="replace")
    if run.exit_status == 124:
        raise CheckError(f"find-drift.sh took longer than {seconds} seconds")
    if run.exit_status != 0:
        raise CheckError(last_line(run.stderr) or f"find-drift.sh failed with {run.exit_status}")
    return read_machine(machine, str(run.stdout))
