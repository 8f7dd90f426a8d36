"""Test clusters: stacks made like another for a while, and taken down when they have expired.

Works on the stacks of the project in the current folder, with the pulumi on PATH.
"""

import argparse
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

import yaml

from operations import stack_file
from operations.engine import ROOT
from operations.recovery import __main__ as recover
from operations.test_clusters.expiry import Cluster, read_cluster, say_when, table
from operations.test_clusters.settings import (
    RefusedError,
    check_name,
    is_test_cluster,
    make_settings,
    read_ttl,
)

LONGEST_JOB = timedelta(hours=2)
"""More than any workflow allows a job."""


def run(name: str, *command: str | Path) -> None:
    """Runs a command that works on a stack, and that has to succeed."""
    with subprocess.Popen(command, env=_with_stack(name), stdin=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the engine was told as well, and finishes what it is at
            raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def ask(*arguments: str, name: str = "") -> Any:
    """What pulumi answers in JSON. What it says on standard error is the user's to read."""

    def once() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", *arguments], env=_with_stack(name), capture_output=True, text=True, check=False
        )

    done = once()
    if done.returncode and done.stderr.rstrip().endswith("EOF"):
        time.sleep(1)  # another run was just writing the state
        done = once()
    sys.stderr.write(done.stderr)
    done.check_returncode()
    return json.loads(done.stdout)


def _with_stack(name: str) -> dict[str, str]:
    return {**os.environ, "PULUMI_STACK": name} if name else dict(os.environ)


def stacks() -> list[str]:
    return [stack["name"].rpartition("/")[2] for stack in ask("stack", "ls", "--json")]


def read(name: str) -> Cluster | None:
    """The test cluster of that name, None when the stack is none."""
    return read_cluster(name, export(name))


def export(name: str) -> dict[str, Any]:
    deployment: dict[str, Any] = ask("stack", "export", name=name)["deployment"]
    return deployment


def settings_file(name: str) -> Path:
    return Path(f"Pulumi.{name}.yaml")


def recall_settings(name: str) -> None:
    """Settings that are not here, as on a fresh checkout, are had back from the stack's last update, if there was one."""
    if not settings_file(name).exists():
        command = ["pulumi", "config", "refresh"]
        subprocess.run(command, env=_with_stack(name), check=False, capture_output=True)


def is_another(name: str) -> bool:
    """Whether a stack that is there is no test cluster; one of which nothing ever was can be."""
    if export(name).get("resources"):
        return read(name) is None
    recall_settings(name)
    own = stack_file.read(settings_file(name))
    return bool(own) and not is_test_cluster(own)


def settings(name: str, ttl: str, like: str) -> Mapping[str, Any]:
    """Those of a test cluster, without its secrets; refused before anything is touched."""
    files = {
        path.name.split(".")[1]: path for folder in (Path(), ROOT) for path in folder.glob("Pulumi.*.yaml")
    }
    others = {stack for stack, path in files.items() if not is_test_cluster(stack_file.read(path))}
    check_name(name, others)
    expiry = f"{datetime.now(UTC) + read_ttl(ttl):%Y-%m-%dT%H:%M:%SZ}"
    if like not in files:
        raise RefusedError(
            f"STACK is {like}, but there is no Pulumi.{like}.yaml: give one of {', '.join(sorted(files))}"
        )
    return make_settings(stack_file.read(files[like]), like, name, expiry)


def up(name: str, ttl: str, like: str) -> None:
    made = settings(name, ttl, like)
    if name in stacks():
        if is_another(name):
            raise RefusedError(
                f"NAME is {name}, which is a stack that does not expire: give another, such as pr-123"
            )
        recall_settings(name)
    file = settings_file(name)
    stack_file.write(file, stack_file.with_secrets_of(stack_file.read(file), made))
    run(name, sys.executable, "-m", "operations.new_stack", name)
    recover_from_kill(name)
    run(name, "pulumi", "up", "--yes", "--policy-pack", "policy")


def down(name: str) -> None:
    check_name(name)
    if name not in stacks():
        if is_test_cluster(stack_file.read(settings_file(name))):
            settings_file(name).unlink()
        print(f"There is no test cluster {name}: nothing to do.")
        return
    if is_another(name):
        raise RefusedError(
            f"Stack {name} carries no expiry, so it is no test cluster: make down STACK={name} is for it."
        )
    take_down(name)


def remove(name: str) -> None:
    if name in stacks():
        take_down(name)
    settings_file(name).unlink(missing_ok=True)


def recover_from_kill(name: str) -> None:
    run(name, sys.executable, "-m", "operations.recovery", name)


def cancel_dead_job(name: str, now: datetime) -> None:
    """Nobody can ask the machine of a job in CI whether a run is still at work there: it is gone with the job."""
    locks = recover.backend().locks(name)
    if all(now - datetime.fromisoformat(lock.since) > LONGEST_JOB for lock in locks):
        recover.cancel(name, locks)


def take_down(name: str) -> None:
    recall_settings(name)
    recover_from_kill(name)
    run(name, "pulumi", "destroy", "--yes", "--skip-preview")
    run(name, "pulumi", "stack", "rm", "--yes")


def show() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [cluster for cluster in pool.map(read, stacks()) if cluster]
    print(table(found, datetime.now(UTC)) if found else "There are no test clusters.")


def down_expired() -> None:
    expired: list[str] = []
    failed: list[str] = []
    for name in stacks():
        try:
            if take_down_if_expired(name):
                expired.append(name)
        except Exception as error:  # whatever it is, it stops none of the others
            print(f"{name}: {error!r}", file=sys.stderr)
            failed.append(name)
    if not expired and not failed:
        print("No test cluster has expired.")
    if failed:
        raise RefusedError(
            f"These could not be looked at, or have expired and could not be taken down: {', '.join(failed)}."
        )


def take_down_if_expired(name: str) -> bool:
    cluster, now = read(name), datetime.now(UTC)
    if cluster is None:
        return False
    when = say_when(cluster.expiry, now)
    if cluster.expiry > now:
        print(f"{name} stays: it expires {when}.")
        return False
    print(f"==> {name} goes: it expired {when}.", flush=True)
    cancel_dead_job(name, now)
    take_down(name)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in (
        ("up", "bring a test cluster up, or up to date, and prolong its expiry"),
        ("settings", "print what its settings would be"),
    ):
        making = commands.add_parser(command, help=text)
        making.add_argument("name")
        making.add_argument("ttl", help="how long it is wanted for: 30m, 4h, 2d")
        making.add_argument("like", help="the stack that it is made like")
    commands.add_parser("down", help="take one down").add_argument("name")
    commands.add_parser("remove", help="take any stack down, and forget it").add_argument("name")
    commands.add_parser("list", help="show them and when they expire")
    commands.add_parser("down-expired", help="take down those that have expired")
    chosen = parser.parse_args()
    match chosen.command:
        case "up":
            up(chosen.name, chosen.ttl, chosen.like)
        case "settings":
            print(yaml.safe_dump(settings(chosen.name, chosen.ttl, chosen.like), sort_keys=False), end="")
        case "down":
            down(chosen.name)
        case "remove":
            remove(chosen.name)
        case "list":
            show()
        case _:
            down_expired()


if __name__ == "__main__":
    try:
        main()
    except RefusedError as refused:
        sys.exit(str(refused))
    except FileNotFoundError as error:
        sys.exit(f"test_clusters.py needs {error.filename} on PATH.")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
