"""Report what differs from a stack's state, in the cloud and on its machines, and mark what the next update is to put right.

usage: drift.py STACK [markdown]

Ends with 1 when something differs, with 2 when something could not be looked at. Changes nothing but the state: steps
whose work was undone are tainted there, rules that were added to a security group are imported, so that `pulumi up`
runs the ones again and takes the others away.
"""

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncssh
from botocore.exceptions import BotoCoreError, ClientError

from operations.drift.findings import (
    CLOUD,
    RULES,
    STATE,
    AddedRule,
    Connection,
    Deployment,
    Difference,
    Drift,
    Machine,
    Unseen,
    added_rules,
    away,
    find_drift_script,
    read_cloud,
    read_machine,
    read_state,
    without_secrets,
)
from operations.drift.report import issue, text
from operations.recovery import untracked_resources

LOGIN = 8
"""Seconds in which a machine must let us in."""
LOOK = 20
"""Seconds that the look at a machine may take."""


def pulumi(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["pulumi", "--non-interactive", *arguments], capture_output=True, text=True)


def reason(run: "subprocess.CompletedProcess[str]") -> str:
    """Why Pulumi failed, in its own words."""
    try:
        said = [
            line["message"] for line in json.loads(run.stdout)["diagnostics"] if line["severity"] == "error"
        ]
    except (ValueError, KeyError):
        said = [run.stderr]
    lines = [line.strip() for line in "\n".join(said).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("warning:"))[:1000].removeprefix("error: ")


# The cloud


def look_at_state(stack: str) -> Sequence[Difference] | Unseen:
    """For what was done to its resources."""
    run = pulumi("refresh", "--preview-only", "--json", "--stack", stack)
    return Unseen(CLOUD, reason(run)) if run.returncode else read_cloud(run.stdout)


@dataclass(frozen=True)
class Account:
    """What the account says beside: which machines do not run, and rules that are no resources of the state."""

    away: set[str]
    rules: Sequence[AddedRule]
    differences: Sequence[Difference]


def look_at_account(deployment: Deployment) -> Account | Unseen:
    def described(what: str, filter: str, ids: Iterable[str], key: str) -> list[Mapping[str, Any]]:
        pages = ec2.get_paginator(what).paginate(Filters=[{"Name": filter, "Values": sorted(ids)}])
        return [one for page in pages for one in page[key]]

    try:
        ec2 = untracked_resources.Account(deployment.provider)("ec2")
        names, stopped = away(
            deployment, described("describe_instances", "instance-id", deployment.instances, "Reservations")
        )
        rules, added = added_rules(
            deployment,
            described("describe_security_group_rules", "group-id", deployment.groups, "SecurityGroupRules"),
        )
    except (BotoCoreError, ClientError) as error:
        return Unseen(CLOUD, str(error))
    return Account(names, rules, [*stopped, *added])


# The machines


async def log_in(
    to: Connection, through: asyncssh.SSHClientConnection | None = None
) -> asyncssh.SSHClientConnection:
    async with asyncio.timeout(LOGIN):
        return await asyncssh.connect(
            to.host,
            to.port,
            tunnel=through or (),
            config=None,
            username=to.user,
            client_keys=[asyncssh.import_private_key(to.private_key)],
            known_hosts=([asyncssh.import_public_key(to.host_key)], [], []),
            agent_path=None,
        )


async def look_at_machine(machine: Machine, on: asyncssh.SSHClientConnection) -> list[Difference] | Unseen:
    script = find_drift_script(machine)
    if script is None:
        return Unseen(
            machine.name,
            "what was deployed there cannot be looked at yet; the next update brings what it takes",
        )
    words = [step.script for step in machine.steps]
    command = shlex.join(["sudo", "timeout", str(LOOK - 2), "bash", "-c", script, "find-drift.sh", *words])
    async with asyncio.timeout(LOOK):
        run = await on.run(command, input=machine.deployed, errors="replace")
    if run.exit_status != 0:
        said = str(run.stderr).strip().splitlines()[-1:] or [f"find-drift.sh ended with {run.exit_status}"]
        return Unseen(
            machine.name, f"took longer than {LOOK - 2} seconds" if run.exit_status == 124 else said[0]
        )
    return read_machine(machine, str(run.stdout))


def why(machine: Machine, error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case asyncssh.HostKeyNotVerifiable():
            return "it has another SSH host key than this stack gave it"
        case asyncssh.PermissionDenied():
            stack = machine.urn.split(":")[2]
            return (
                "it does not let the stack's SSH key in, so no update can mend it; to replace it: "
                f"pulumi state taint --stack {stack} {shlex.quote(machine.urn)}, then make up STACK={stack}"
            )
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


async def look_at_machines(machines: Sequence[Machine]) -> list[list[Difference] | Unseen]:
    """All at the same time; through the load balancer to those behind it."""
    door = next((machine for machine in machines if not machine.jumped), None)
    if door is None:
        return [
            Unseen(machine.name, "the state has no load balancer, which is the way there")
            for machine in machines
        ]
    entrance = asyncio.create_task(log_in(door.connection))

    async def look(machine: Machine) -> list[Difference] | Unseen:
        try:
            connection = await entrance
        except (OSError, TimeoutError, asyncssh.Error) as error:
            return Unseen(
                machine.name,
                why(machine, error) if machine is door else f"the way there leads through {door.name}",
            )
        try:
            if machine is not door:
                connection = await log_in(machine.connection, connection)
            return await look_at_machine(machine, connection)
        except (OSError, TimeoutError, asyncssh.Error) as error:
            return Unseen(machine.name, why(machine, error))

    return await asyncio.gather(*(look(machine) for machine in machines))


# Marking


def mark(stack: str, differences: Sequence[Difference], rules: Sequence[AddedRule]) -> str:
    """In the state, for the next update; or why that cannot be done."""
    if urns := sorted({urn for one in differences for urn in one.marks}):
        run = pulumi("state", "taint", "--yes", "--stack", stack, *urns)
        if run.returncode:
            return reason(run)
    if new := [rule for rule in rules if not rule.imported]:
        resources = [{"type": RULES[rule.egress], "name": rule.name, "id": rule.id} for rule in new]
        options = [
            "--yes",
            "--skip-preview",
            "--protect=false",
            "--generate-code=false",
            "--suppress-outputs",
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"resources": resources}, file)
            file.flush()
            run = pulumi("import", "--file", file.name, *options, "--stack", stack)
        if run.returncode:
            return reason(run)
    return ""


async def find(stack: str, deployment: Deployment) -> tuple[Drift, Sequence[AddedRule]]:
    state, account, machines = await asyncio.gather(
        asyncio.to_thread(look_at_state, stack),
        asyncio.to_thread(look_at_account, deployment),
        look_at_machines(deployment.machines),
    )
    seen = [state, account.differences if isinstance(account, Account) else account, *machines]
    # A machine that does not run is a difference, and needs no second word.
    expected = account.away if isinstance(account, Account) else set[str]()
    return Drift(
        [difference for found in seen if not isinstance(found, Unseen) for difference in found],
        [unseen for unseen in seen if isinstance(unseen, Unseen) and unseen.where not in expected],
    ), account.rules if isinstance(account, Account) else []


def main() -> int:
    stack, markdown = sys.argv[1], "markdown" in sys.argv[2:]
    show = issue if markdown else text
    export = pulumi("stack", "export", "--show-secrets", "--stack", stack)
    if export.returncode:
        print(show(stack, Drift([], [Unseen(STATE, reason(export))])))
        return 2
    deployment = read_state(export.stdout)
    if not deployment.machines:
        print(show(stack, Drift([], [Unseen(STATE, "there is no cluster yet: make up makes it")])))
        return 2
    drift, rules = asyncio.run(find(stack, deployment))
    if pulumi("stack", "export", "--show-secrets", "--stack", stack).stdout != export.stdout:
        # What it has just made would pass for made by hand.
        print(show(stack, Drift([], [Unseen(STATE, "another run changed it meanwhile: look again")])))
        return 2
    drift = replace(drift, unmarked=mark(stack, drift.differences, rules))
    print(without_secrets(show(stack, drift), deployment.secrets))
    return drift.status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(f"drift.py needs {error.filename} on PATH.")
