"""Take up what a killed run of pulumi left, so that the next `pulumi up` or `pulumi destroy` just works.

usage: recover.py STACK

A lock whose process is gone is cancelled. What AWS has made although the state does not say so is looked up there,
by tags and names, and taken into the state. Prints a line for each thing it did, none where there is nothing to do.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from operations.engine import ROOT, pulumi
from operations.recovery.interrupted_update import (
    Entry,
    Lock,
    in_force,
    pending_creates,
    provider_of,
    read_lock,
    unknown,
    with_made,
)

SHOWS_WITHIN = 5
"""Seconds after which AWS shows what it has made."""


@dataclass(frozen=True)
class Backend:
    """Where the engine keeps states; what a kill may leave there is looked for in folders and S3 buckets.

    Pulumi Cloud's locks expire by themselves, and of those elsewhere the engine tells.
    """

    url: str
    project: str

    @property
    def folder(self) -> Path | None:
        here = self.url.startswith("file://")
        return Path(self.url.removeprefix("file://")).expanduser() / ".pulumi" if here else None

    def locks(self, stack: str) -> list[Lock]:
        place = f"locks/organization/{self.project}/{stack}"
        if self.folder:
            return [
                read_lock(f"file://{file}", file.read_text()) for file in (self.folder / place).glob("*.json")
            ]
        if self.url.startswith("s3://"):
            return [read_lock(*lock) for lock in _objects(self.url, f".pulumi/{place}/")]
        return []

    def mend(self, stack: str) -> None:
        """The files are whole at any time. What describes each of them, beside it, may be half-written."""
        if not self.folder:
            return
        of_stack = (f"*/{self.project}/{stack}.json*", f"**/{self.project}/{stack}/*")
        for file in {file for pattern in of_stack for file in self.folder.glob(pattern)}:
            if file.suffix == ".tmp" or (file.suffix == ".attrs" and not _is_json(file.read_text())):
                file.unlink()
                print(f"removed {file}, which was half-written")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def backend() -> Backend:
    url = os.environ.get("PULUMI_BACKEND_URL") or json.loads(pulumi("whoami", "--json"))["url"]
    return Backend(url, yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"])


def _objects(url: str, folder: str) -> Iterator[tuple[str, str]]:
    import boto3

    parts = urlsplit(url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    session: Any = boto3.Session(region_name=query.get("region"), profile_name=query.get("profile"))
    s3 = session.client("s3", endpoint_url=query.get("endpoint"))
    prefix = f"{parts.path}/{folder}".lstrip("/")
    for item in s3.list_objects_v2(Bucket=parts.netloc, Prefix=prefix).get("Contents", []):
        text = s3.get_object(Bucket=parts.netloc, Key=item["Key"])["Body"].read().decode()
        yield f"s3://{parts.netloc}/{item['Key']}", text


def runs(pid: int) -> bool:
    """Whether a process of this host is the engine; its number may be another's by now."""
    name = Path(f"/proc/{pid}/comm")
    if Path("/proc/self/comm").exists():
        return name.exists() and name.read_text().startswith("pulumi")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def this_host(place: Backend) -> str | None:
    """Its name, where that tells it from all others that work on the state: forges give their jobs' machines names again."""
    return socket.gethostname() if place.folder or not os.environ.get("CI") else None


def refuse_if_busy(stack: str, locks: Sequence[Lock], host: str | None) -> None:
    if valid := in_force(locks, host, runs):
        sys.exit(
            f"the stack {stack} is currently locked by {len(valid)} lock(s):\n"
            + "\n".join(f"  {lock}" for lock in valid)
            + f"\nWait for the other process to end. If you know that it has ended: pulumi cancel --yes {stack}, and again."
        )


def cancel(stack: str, locks: Sequence[Lock]) -> None:
    if locks:
        pulumi("cancel", "--yes", stack)
    for lock in locks:
        print(f"cancelled the run of {lock.since}, whose process (pid {lock.pid}) is gone")


def look_up(stack: str, created: list[Entry]) -> dict[str, list[str]]:
    """What pending creations made: ids by URN."""
    from operations.recovery.untracked_resources import Account, find

    # In clear, for the provider's credentials; this copy is not written anywhere.
    state: dict[str, Any] = export(stack, "--show-secrets")["deployment"]
    accounts: dict[str, Account] = {}
    for entry in created:
        provider = provider_of(state, entry)
        if provider is None:
            sys.exit(
                f"{_name(entry)} was being created when a run was killed, and a later one took its provider out of the "
                "state: see in AWS whether it is there, delete it, and then run "
                f"pulumi refresh --clear-pending-creates --stack {stack}"
            )
        if entry["provider"] not in accounts:
            accounts[entry["provider"]] = Account(_in_clear(provider["inputs"]))
    shown = datetime.fromisoformat(state["manifest"]["time"]).timestamp() + SHOWS_WITHIN
    while True:
        made = {
            entry["urn"]: unknown(
                state, entry["type"], find(accounts[entry["provider"]], entry["type"], entry["inputs"])
            )
            for entry in created
        }
        if all(made.values()) or time.time() > shown:
            return made
        time.sleep(0.5)


def export(stack: str, *options: str) -> dict[str, Any]:
    exported: dict[str, Any] = json.loads(pulumi("stack", "export", "--stack", stack, *options))
    return exported


def _in_clear(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: json.loads(value["plaintext"]) if "plaintext" in value else value
        for key, value in inputs.items()
    }


def _name(entry: Entry) -> str:
    return f"{entry['urn'].rpartition('::')[2]} ({entry['type']})"


def take_up_creations(stack: str) -> None:
    exported = export(stack)
    created = pending_creates(exported["deployment"])
    if not exported["deployment"].get("pending_operations"):
        return
    # Whatever runs on machines is begun anew: its scripts are made for that.
    of_aws = [entry for entry in created if entry["type"].startswith("aws:")]
    made = look_up(stack, of_aws) if of_aws else {}
    exported["deployment"] = with_made(exported["deployment"], made)
    pulumi("stack", "import", "--stack", stack, stdin=json.dumps(exported))
    for entry in created:
        ids = ", ".join(made.get(entry["urn"], ()))
        print(f"{_name(entry)}: " + (f"{ids} is there, and in the state again" if ids else "begins anew"))


def main() -> None:
    (stack,) = sys.argv[1:]
    place = backend()
    locks = place.locks(stack)
    refuse_if_busy(stack, locks, this_host(place))
    place.mend(stack)
    cancel(stack, locks)
    take_up_creations(stack)


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"recover.py needs {error.filename} on PATH.")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
