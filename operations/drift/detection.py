"""Detects drift of a stack, and marks it in the state for the next update."""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operations.drift.cloud import read_instances, read_refresh, read_rules
from operations.deployment import RULE_TYPES, Deployment, read_deployment
from operations.drift.findings import CLOUD, STATE, AddedRule, Difference, Drift, Unreachable
from operations.drift.machines import check_machines
from operations.recovery.untracked_resources import Account


def detect_drift(stack: str) -> tuple[Drift, frozenset[str]]:
    """Returns the stack's drift, and the secrets that no report may show."""
    exported = _export(stack)
    if exported.returncode:
        return Drift([], [Unreachable(STATE, _error_of(exported))]), frozenset()
    deployment = read_deployment(exported.stdout)
    if not deployment.machines:
        reason = "there is no cluster yet: run make up first"
        return Drift([], [Unreachable(STATE, reason)]), deployment.secrets
    drift, added_rules = asyncio.run(_check(stack, deployment))
    if _export(stack).stdout != exported.stdout:
        # Resources that another run has just created would look as if added by hand.
        reason = "another run changed it during the check: run make drift again"
        return Drift([], [Unreachable(STATE, reason)]), deployment.secrets
    error = _mark(stack, drift.differences, added_rules)
    return replace(drift, marking_error=error), deployment.secrets


async def _check(stack: str, deployment: Deployment) -> tuple[Drift, Sequence[AddedRule]]:
    """Checks state, account and machines at the same time."""
    refresh, account, machines = await asyncio.gather(
        asyncio.to_thread(_check_resources, stack),
        asyncio.to_thread(_check_account, deployment),
        check_machines(deployment.machines),
    )
    if isinstance(account, Unreachable):
        results, rules, not_running = [refresh, account, *machines], list[AddedRule](), set[str]()
    else:
        results = [refresh, account.differences, *machines]
        rules, not_running = account.added_rules, account.not_running
    return Drift(
        [difference for result in results if not isinstance(result, Unreachable) for difference in result],
        # A machine that does not run is reported as a difference already.
        [result for result in results if isinstance(result, Unreachable) and result.place not in not_running],
    ), rules


def _check_resources(stack: str) -> Sequence[Difference] | Unreachable:
    """Compares the resources of the state with the cloud."""
    run = _run_pulumi("refresh", "--preview-only", "--json", "--stack", stack)
    return Unreachable(CLOUD, _error_of(run)) if run.returncode else read_refresh(run.stdout)


@dataclass(frozen=True)
class _AccountCheck:
    """What a refresh does not report."""

    not_running: set[str]
    """Names of machines."""
    added_rules: Sequence[AddedRule]
    differences: Sequence[Difference]


def _check_account(deployment: Deployment) -> _AccountCheck | Unreachable:
    def describe(operation: str, filter: str, ids: Iterable[str], key: str) -> list[Mapping[str, Any]]:
        pages = ec2.get_paginator(operation).paginate(Filters=[{"Name": filter, "Values": sorted(ids)}])
        return [item for page in pages for item in page[key]]

    groups = deployment.security_groups
    try:
        ec2 = Account(deployment.provider)("ec2")
        not_running, stopped = read_instances(
            deployment, describe("describe_instances", "instance-id", deployment.instances, "Reservations")
        )
        rules, added = read_rules(
            deployment, describe("describe_security_group_rules", "group-id", groups, "SecurityGroupRules")
        )
    except (BotoCoreError, ClientError) as error:
        return Unreachable(CLOUD, str(error))
    return _AccountCheck(not_running, rules, [*stopped, *added])


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
    """Returns Pulumi's error message on one line."""
    try:
        diagnostics = json.loads(run.stdout)["diagnostics"]
        messages = [line["message"] for line in diagnostics if line["severity"] == "error"]
    except (ValueError, KeyError):
        messages = [run.stderr]
    lines = [line.strip() for line in "\n".join(messages).splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("warning:"))[:1000].removeprefix("error: ")
