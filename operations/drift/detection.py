"""Detects drift of a stack, and marks it in the state for the next update."""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operations.access import SSH_PORT, find_own_address, read_access
from operations.aws_account import AwsClients, describe_instances, describe_rules
from operations.aws_failures import explain_aws_error, find_aws_failure
from operations.drift.aws import find_stopped, read_refresh, read_rules
from operations.drift.findings import CLOUD, STATE, AddedRule, Difference, Drift, Unreachable
from operations.drift.machines import check_machines
from operations.instances import Instance, read_instances
from operations.ssh import NO_ANSWER
from operations.stack_state import RULE_TYPES, StackState, read_stack_state


def detect_drift(stack: str) -> tuple[Drift, frozenset[str]]:
    """Returns the stack's drift, and the secrets that no report may show."""
    exported = _export(stack)
    if exported.returncode:
        return Drift([], [Unreachable(STATE, _error_of(exported))]), frozenset()
    state = read_stack_state(exported.stdout)
    if not state.machines:
        reason = "there is no cluster yet: run make up first"
        return Drift([], [Unreachable(STATE, reason)]), state.secrets
    drift, added_rules = asyncio.run(_check(stack, state))
    if _export(stack).stdout != exported.stdout:
        # Resources that another run has just created would look as if added by hand.
        reason = "another run changed it during the check: run make drift again"
        return Drift([], [Unreachable(STATE, reason)]), state.secrets
    error = _mark(stack, drift.differences, added_rules)
    return replace(drift, marking_error=error), state.secrets


async def _check(stack: str, state: StackState) -> tuple[Drift, Sequence[AddedRule]]:
    """Checks state, account and machines at the same time."""
    refresh, account, machines = await asyncio.gather(
        asyncio.to_thread(_check_resources, stack),
        asyncio.to_thread(_check_account, state),
        check_machines(state.machines),
    )
    if isinstance(account, Unreachable):
        # The refresh fails for the same reason, in other words.
        cloud = [account] if isinstance(refresh, Unreachable) else [refresh, account]
        results, rules, not_running = [*cloud, *machines], list[AddedRule](), set[str]()
    else:
        rules, added = read_rules(state, account.rules)
        results = [refresh, [*find_stopped(account.instances), *added], *machines]
        not_running = {instance.name for instance in account.instances if instance.state != "running"}
    unreachable = [
        # A machine that does not run is reported as a difference already.
        result
        for result in results
        if isinstance(result, Unreachable) and result.place not in not_running
    ]
    if not isinstance(account, Unreachable):
        unreachable = await asyncio.to_thread(_explain_access, state, account.rules, unreachable)
    return Drift(
        [difference for result in results if not isinstance(result, Unreachable) for difference in result],
        unreachable,
    ), rules


def _check_resources(stack: str) -> Sequence[Difference] | Unreachable:
    """Compares the resources of the state with the cloud."""
    run = _run_pulumi("refresh", "--preview-only", "--json", "--stack", stack)
    return Unreachable(CLOUD, _error_of(run)) if run.returncode else read_refresh(run.stdout)


@dataclass(frozen=True)
class _Account:
    """What a refresh does not report, as AWS describes it."""

    instances: Sequence[Instance]
    rules: Sequence[Mapping[str, Any]]
    """Of the stack's security groups."""


def _check_account(state: StackState) -> _Account | Unreachable:
    try:
        aws = AwsClients(state.provider)
        instances = read_instances(state, describe_instances(aws, state))
        return _Account(instances, describe_rules(aws, state))
    except (BotoCoreError, ClientError) as error:
        return Unreachable(CLOUD, explain_aws_error(error))


def _explain_access(
    state: StackState, rules: Sequence[Mapping[str, Any]], unreachable: list[Unreachable]
) -> list[Unreachable]:
    """Explains a load balancer that does not answer, if its security group does not admit this machine."""
    balancers = {machine.name for machine in state.machines if not machine.behind_balancer}
    if not any(one.place in balancers and one.reason == NO_ANSWER for one in unreachable):
        return unreachable
    run = _run_pulumi("config", "--json", "--stack", state.stack)
    configuration: dict[str, Any] = {} if run.returncode else json.loads(run.stdout)
    access = read_access(state, configuration, rules, [SSH_PORT])
    problem = access.find_problem([SSH_PORT], find_own_address())
    return [
        replace(one, reason=f"{NO_ANSWER}: {problem.reason}") if problem and one.place in balancers else one
        for one in unreachable
    ]


def _mark(stack: str, differences: Sequence[Difference], rules: Sequence[AddedRule]) -> str:
    """Taints the steps that restore the differences and imports added rules, which the next update then deletes.

    Returns the error, or an empty string.
    """
    if urns := sorted({urn for difference in differences for urn in difference.steps}):
        run = _run_pulumi("state", "taint", "--yes", "--stack", stack, *urns)
        if run.returncode:
            return _error_of(run)
    if new := [rule for rule in rules if not rule.imported]:
        resources = [{"type": RULE_TYPES[rule.egress], "name": rule.name, "id": rule.id} for rule in new]
        options = (
            "--yes",
            "--skip-preview",
            "--protect=false",
            "--generate-code=false",
            "--suppress-outputs",
        )
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"resources": resources}, file)
            file.flush()
            run = _run_pulumi("import", "--file", file.name, *options, "--stack", stack)
        if run.returncode:
            return _error_of(run)
    return ""


def _export(stack: str) -> "subprocess.CompletedProcess[str]":
    return _run_pulumi("stack", "export", "--show-secrets", "--stack", stack)


def _run_pulumi(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["pulumi", "--non-interactive", *arguments], capture_output=True, text=True)


def _error_of(run: "subprocess.CompletedProcess[str]") -> str:
    """Returns Pulumi's error message on one line, or what failed at AWS."""
    try:
        diagnostics = json.loads(run.stdout)["diagnostics"]
        messages = [line["message"] for line in diagnostics if line["severity"] == "error"]
    except (ValueError, KeyError):
        messages = [run.stderr]
    lines = [line.strip() for line in "\n".join(messages).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith("warning:"))
    return str(find_aws_failure(text) or text[:1000].removeprefix("error: "))
