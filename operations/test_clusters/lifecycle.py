"""Creates, lists and deletes test clusters.

Works on the stacks of the project in the current folder, with the pulumi on PATH.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from operations import stack_file
from operations.aws_failures import explain_aws_error, find_aws_failure, is_aws_error
from operations.engine import ROOT
from operations.recovery.locks import cancel_locks, current_backend
from operations.test_clusters.expiry import Cluster, format_clusters, format_expiry, read_cluster
from operations.test_clusters.settings import (
    CommandError,
    check_name,
    create_settings,
    is_test_cluster,
    read_ttl,
)

LONGEST_JOB = timedelta(hours=2)
"""Longer than any workflow allows a job to run."""


def bring_up(name: str, ttl: str, source: str) -> None:
    """Creates or updates a test cluster with the settings of the stack `source`, and extends its expiry."""
    settings = settings_for(name, ttl, source)
    if name in _list_stacks():
        if _is_other_stack(name):
            raise CommandError(f"NAME is {name}, which is not a test cluster: give another, such as pr-123")
        _restore_settings_file(name)
    file = _settings_file(name)
    stack_file.write(file, stack_file.add_secrets(settings, stack_file.read(file)))
    _run(name, sys.executable, "-m", "operations.new_stack", name)
    _recover(name)
    _run(name, "pulumi", "up", "--yes", "--policy-pack", "policy")


def settings_for(name: str, ttl: str, source: str) -> Mapping[str, Any]:
    """Returns the settings of a test cluster, without its secrets. Changes nothing.

    Raises `CommandError` if the name, TTL or source is not possible.
    """
    files = {
        path.name.split(".")[1]: path for folder in (Path(), ROOT) for path in folder.glob("Pulumi.*.yaml")
    }
    other_stacks = {stack for stack, path in files.items() if not is_test_cluster(stack_file.read(path))}
    check_name(name, other_stacks)
    expiry = f"{datetime.now(UTC) + read_ttl(ttl):%Y-%m-%dT%H:%M:%SZ}"
    if source not in files:
        raise CommandError(
            f"STACK is {source}, but there is no Pulumi.{source}.yaml: give one of {', '.join(sorted(files))}"
        )
    return create_settings(stack_file.read(files[source]), source, name, expiry)


def delete_test_cluster(name: str) -> None:
    """Deletes a test cluster and its stack. Refuses any other stack."""
    check_name(name)
    if name not in _list_stacks():
        if is_test_cluster(stack_file.read(_settings_file(name))):
            _settings_file(name).unlink()
        print(f"There is no test cluster {name}: nothing to do.")
        return
    if _is_other_stack(name):
        raise CommandError(f"NAME is {name}, which is not a test cluster: use make down STACK={name}")
    _destroy(name)


def delete_stack(name: str) -> None:
    """Deletes any stack, with its resources and its settings file."""
    if name in _list_stacks():
        _destroy(name)
    _settings_file(name).unlink(missing_ok=True)


def list_clusters() -> str:
    """Returns a table of the test clusters."""
    with ThreadPoolExecutor(4) as pool:
        clusters = [cluster for cluster in pool.map(_read_cluster, _list_stacks()) if cluster]
    return format_clusters(clusters, datetime.now(UTC)) if clusters else "There are no test clusters."


def delete_expired_test_clusters() -> None:
    """Deletes all expired test clusters. One that fails does not stop the others.

    Raises `CommandError` in the end if any failed.
    """
    expired: list[str] = []
    failed: list[str] = []
    for name in _list_stacks():
        try:
            if _delete_if_expired(name):
                expired.append(name)
        except Exception as error:
            print(f"{name}: {_explain(error)}", file=sys.stderr)
            failed.append(name)
    if not expired and not failed:
        print("No test cluster has expired.")
    if failed:
        raise CommandError(
            f"These stacks could not be checked, or have expired and could not be deleted: {', '.join(failed)}."
        )


def _explain(error: Exception) -> str:
    if is_aws_error(error):
        return explain_aws_error(error)
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}"
    return str(error) if isinstance(error, CommandError) else repr(error)


def _delete_if_expired(name: str) -> bool:
    cluster, now = _read_cluster(name), datetime.now(UTC)
    if cluster is None:
        return False
    expiry = format_expiry(cluster.expiry, now)
    if cluster.expiry > now:
        print(f"{name} expires {expiry}")
        return False
    print(f"==> Deleting {name}: it expired {expiry}", flush=True)
    _cancel_locks_of_ended_jobs(name, now)
    _destroy(name)
    return True


def _cancel_locks_of_ended_jobs(name: str, now: datetime) -> None:
    """Cancels the stack's locks if all are older than any job.

    Such a lock cannot be checked against its process, because the CI machine is gone. Its age shows that the job has ended.
    """
    locks = current_backend().read_locks(name)
    if all(now - datetime.fromisoformat(lock.created) > LONGEST_JOB for lock in locks):
        cancel_locks(name, locks)


def _destroy(name: str) -> None:
    _restore_settings_file(name)
    _recover(name)
    _run(name, "pulumi", "destroy", "--yes", "--skip-preview")
    _run(name, "pulumi", "stack", "rm", "--yes")


def _recover(name: str) -> None:
    _run(name, sys.executable, "-m", "operations.recovery", name)


def _list_stacks() -> list[str]:
    return [stack["name"].rpartition("/")[2] for stack in _query_pulumi("stack", "ls", "--json")]


def _read_cluster(name: str) -> Cluster | None:
    """Returns the test cluster of that name, or None if the stack is not a test cluster."""
    return read_cluster(name, _export(name))


def _export(name: str) -> dict[str, Any]:
    deployment: dict[str, Any] = _query_pulumi("stack", "export", name=name)["deployment"]
    return deployment


def _settings_file(name: str) -> Path:
    return Path(f"Pulumi.{name}.yaml")


def _restore_settings_file(name: str) -> None:
    """If the settings file is missing, as in a fresh checkout, restores it from the stack's last update."""
    if not _settings_file(name).exists():
        command = ["pulumi", "config", "refresh"]
        subprocess.run(command, env=_environment(name), check=False, capture_output=True)


def _is_other_stack(name: str) -> bool:
    """True if an existing stack is not a test cluster. A stack without resources and settings may become a test cluster."""
    if _export(name).get("resources"):
        return _read_cluster(name) is None
    _restore_settings_file(name)
    settings = stack_file.read(_settings_file(name))
    return bool(settings) and not is_test_cluster(settings)


def _run(name: str, *command: str | Path) -> None:
    """Runs a command on a stack. Raises `CalledProcessError` if it fails."""
    with subprocess.Popen(command, env=_environment(name), stdin=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # Pulumi gets the signal too, and finishes its current operations
            raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def _query_pulumi(*arguments: str, name: str = "") -> Any:
    """Returns the JSON that Pulumi prints. Its standard error is passed through."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments], env=_environment(name), capture_output=True, text=True, check=False
        )

    result = run()
    if result.returncode and result.stderr.rstrip().endswith("EOF"):
        time.sleep(1)  # the state file was being written; try once more
        result = run()
    sys.stderr.write(result.stderr)
    if result.returncode and (failure := find_aws_failure(result.stderr)):
        raise CommandError(str(failure))
    result.check_returncode()
    return json.loads(result.stdout)


def _environment(stack: str) -> dict[str, str]:
    return {**os.environ, "PULUMI_STACK": stack} if stack else dict(os.environ)
