"""Recovers a stack after an interrupted Pulumi run."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from operations.engine import run_pulumi
from operations.recovery.interrupted_update import (
    Resource,
    drop_tracked_ids,
    find_pending_creates,
    find_provider,
    import_created_resources,
)
from operations.recovery.locks import cancel_locks, current_backend, refuse_if_locked, unique_host_name
from operations.recovery.orphaned_plugins import end_orphans

VISIBLE_WITHIN = 5
"""Seconds until AWS lists a resource that it has created."""


def recover_stack(stack: str) -> None:
    """Ends orphaned plugins, removes stale locks and incomplete files, and imports created resources.

    Exits with an error if a lock is valid.
    """
    backend = current_backend()
    locks = backend.read_locks(stack)
    refuse_if_locked(stack, locks, unique_host_name(backend))
    # Before AWS is searched: a plugin that still runs may create more.
    end_orphans(stack)
    backend.remove_incomplete_files(stack)
    cancel_locks(stack, locks)
    _resolve_pending_operations(stack)


def _resolve_pending_operations(stack: str) -> None:
    exported = _export(stack)
    if not exported["deployment"].get("pending_operations"):
        return
    pending = find_pending_creates(exported["deployment"])
    # Remote commands run again: their scripts are idempotent.
    aws_resources = [resource for resource in pending if resource["type"].startswith("aws:")]
    created_ids = _find_created_resources(stack, aws_resources) if aws_resources else {}
    exported["deployment"] = import_created_resources(exported["deployment"], created_ids)
    run_pulumi("stack", "import", "--stack", stack, stdin=json.dumps(exported))
    for resource in pending:
        ids = ", ".join(created_ids.get(resource["urn"], ()))
        print(f"{_label(resource)}: " + (f"imported {ids}" if ids else "the next update creates it"))


def _find_created_resources(stack: str, pending: Sequence[Resource]) -> dict[str, list[str]]:
    """Returns the ids of what pending create operations created, by URN. Waits until AWS lists it."""
    from operations.aws_account import AwsClients
    from operations.recovery.untracked_resources import find_ids

    # The provider's credentials are needed in plain text. This copy of the state is not written to any file.
    state: dict[str, Any] = _export(stack, "--show-secrets")["deployment"]
    aws: dict[str, AwsClients] = {}
    for resource in pending:
        provider = find_provider(state, resource)
        if provider is None:
            sys.exit(
                f"{_label(resource)} was being created when a run was interrupted, and its provider is no longer in the "
                "state: delete the resource at AWS if it exists there, and then run "
                f"pulumi refresh --clear-pending-creates --stack {stack}"
            )
        if resource["provider"] not in aws:
            aws[resource["provider"]] = AwsClients(_decrypt(provider["inputs"]))
    deadline = datetime.fromisoformat(state["manifest"]["time"]).timestamp() + VISIBLE_WITHIN
    while True:
        created_ids: dict[str, list[str]] = {}
        for resource in pending:
            found = find_ids(aws[resource["provider"]], resource["type"], resource["inputs"])
            created_ids[resource["urn"]] = drop_tracked_ids(state, resource["type"], found)
        if all(created_ids.values()) or time.time() > deadline:
            return created_ids
        time.sleep(0.5)


def _export(stack: str, *options: str) -> dict[str, Any]:
    exported: dict[str, Any] = json.loads(run_pulumi("stack", "export", "--stack", stack, *options))
    return exported


def _decrypt(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: json.loads(value["plaintext"]) if "plaintext" in value else value
        for key, value in inputs.items()
    }


def _label(resource: Resource) -> str:
    return f"{resource['urn'].rpartition('::')[2]} ({resource['type']})"
