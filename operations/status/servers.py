"""Ant Media Server on each node: its load, the limits above which it refuses publishers, and its applications."""

import asyncio
import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import asyncssh

from cluster.machine_scripts import INSTALLED_SCRIPTS
from operations.ssh import CheckError, Failed, last_line, visit_machines
from operations.stack_state import Machine, StackState
from operations.status.cluster import MediaServer, Unreachable

SCRIPT = "show-server.py"
CHECK_TIMEOUT = 40
"""Seconds for one node."""
LOGIN_REFUSED = 3
"""Exit code of the script."""


class PanelLogin(NamedTuple):
    """The web panel's first administrator."""

    email: str
    password: str


@dataclass(frozen=True)
class LoginRefused:
    """The result of a node that refuses the login."""

    reason: str


def check_media_servers(
    state: StackState, nodes: Collection[str], login: PanelLogin
) -> Mapping[str, MediaServer | Unreachable]:
    """Asks the server on each node.

    If the first node refuses the login, the others are not asked: after some failed logins Ant Media Server refuses all for five
    minutes, also those of people.
    """
    return asyncio.run(_check_media_servers(state, nodes, login))


async def _check_media_servers(
    state: StackState, nodes: Collection[str], login: PanelLogin
) -> Mapping[str, MediaServer | Unreachable]:
    async def show_server(
        machine: Machine, connection: asyncssh.SSHClientConnection
    ) -> MediaServer | LoginRefused:
        if f"=== {SCRIPT}\n" not in machine.deployed_files:
            raise CheckError(f"{SCRIPT} is not deployed yet; the next update installs it")
        async with asyncio.timeout(CHECK_TIMEOUT):
            run = await connection.run(
                shlex.join(
                    ["sudo", "timeout", str(CHECK_TIMEOUT - 2), f"{INSTALLED_SCRIPTS}/{SCRIPT}", login.email]
                ),
                input=f"{login.password}\n",
                errors="replace",
            )
        if run.exit_status == LOGIN_REFUSED:
            return LoginRefused(last_line(run.stderr))
        if run.exit_status != 0:
            raise CheckError(last_line(run.stderr) or f"{SCRIPT} failed with {run.exit_status}")
        return MediaServer(**json.loads(str(run.stdout)))

    wanted = [machine for machine in state.machines if machine.name in nodes]
    results = await visit_machines(state.machines, show_server, wanted[:1])
    if any(isinstance(result, LoginRefused) for result in results):
        results *= len(wanted)
    else:
        results += await visit_machines(state.machines, show_server, wanted[1:])
    return {
        machine.name: Unreachable(result.reason) if isinstance(result, Failed | LoginRefused) else result
        for machine, result in zip(wanted, results, strict=True)
    }
