"""The locks that Pulumi puts on a stack, and the files of a state that an interrupted run damages."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import yaml

from operations.engine import ROOT, run_pulumi


@dataclass(frozen=True)
class Lock:
    """A lock file, which Pulumi writes into file and bucket backends while it works on a stack."""

    pid: int
    user: str
    host: str
    created: str
    path: str

    def __str__(self) -> str:
        return f"{self.path}: created by {self.user}@{self.host} (pid {self.pid}) at {self.created}"


def read_lock(path: str, text: str) -> Lock | None:
    """Reads a lock file. Returns None for an incomplete one."""
    try:
        lock = json.loads(text)
        created = datetime.fromisoformat(lock["timestamp"]).isoformat(timespec="seconds")
        return Lock(lock["pid"], lock["username"], lock["hostname"], created, path)
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Backend:
    """The backend that stores the states. Locks are read from folders and S3 buckets.

    Pulumi Cloud's locks expire by themselves. With other backends Pulumi itself reports a lock.
    """

    url: str
    project: str

    @property
    def folder(self) -> Path | None:
        if not self.url.startswith("file://"):
            return None
        return Path(self.url.removeprefix("file://")).expanduser() / ".pulumi"

    def read_locks(self, stack: str) -> list[Lock]:
        """Returns the stack's locks.

        Skips incomplete locks in a folder: Pulumi never leaves one there unless its host failed. Exits with an error for one
        in a bucket.
        """
        folder = self._lock_folder(stack)
        if self.folder:
            files = ((file, _read_if_exists(file)) for file in (self.folder / folder).glob("*.json"))
            locks = [read_lock(f"file://{file}", text) for file, text in files if text is not None]
            return [lock for lock in locks if lock]
        if self.url.startswith("s3://"):
            objects = _read_objects(self.url, f".pulumi/{folder}/")
            return [read_lock(*lock) or _refuse_incomplete_lock(lock[0], stack) for lock in objects]
        return []

    def _lock_folder(self, stack: str) -> str:
        return f"locks/organization/{self.project}/{stack}"

    def remove_incomplete_files(self, stack: str) -> None:
        """Removes temporary files, incomplete .attrs files and incomplete locks. Pulumi replaces other files atomically."""
        if not self.folder:
            return
        patterns = (f"*/{self.project}/{stack}.json*", f"**/{self.project}/{stack}/*")
        locks = {*(self.folder / self._lock_folder(stack)).glob("*.json")}
        for file in {file for pattern in patterns for file in self.folder.glob(pattern)}:
            text = _read_if_exists(file) if file.suffix == ".attrs" or file in locks else None
            is_incomplete = text is not None and (
                read_lock(str(file), text) is None if file in locks else not _is_json(text)
            )
            if file.suffix == ".tmp" or is_incomplete:
                file.unlink(missing_ok=True)
                print(f"removed the incomplete file {file}")


def _read_if_exists(file: Path) -> str | None:
    """Returns a file's text. Another run may have deleted its lock since the folder was listed."""
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _refuse_incomplete_lock(url: str, stack: str) -> NoReturn:
    sys.exit(
        f"{url} is not a complete lock, so its owner is unknown. "
        f"If no other process works on the stack {stack}, run pulumi cancel --yes {stack}, and try again."
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def current_backend() -> Backend:
    url = os.environ.get("PULUMI_BACKEND_URL") or json.loads(run_pulumi("whoami", "--json"))["url"]
    return Backend(url, yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"])


def _read_objects(bucket_url: str, folder: str) -> Iterator[tuple[str, str]]:
    """Yields URL and content of the objects in a folder of an S3 bucket."""
    import boto3

    parts = urlsplit(bucket_url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    session: Any = boto3.Session(region_name=query.get("region"), profile_name=query.get("profile"))
    s3 = session.client("s3", endpoint_url=query.get("endpoint"))
    prefix = f"{parts.path}/{folder}".lstrip("/")
    for item in s3.list_objects_v2(Bucket=parts.netloc, Prefix=prefix).get("Contents", []):
        text = s3.get_object(Bucket=parts.netloc, Key=item["Key"])["Body"].read().decode()
        yield f"s3://{parts.netloc}/{item['Key']}", text


def is_engine_running(pid: int) -> bool:
    """True if the process is Pulumi. Another process may have got its pid since."""
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


def unique_host_name(backend: Backend) -> str | None:
    """Returns this host's name, or None if another host that uses the backend may have the same.

    The machines of CI jobs reuse names.
    """
    return socket.gethostname() if backend.folder or not os.environ.get("CI") else None


def find_valid_locks(
    locks: Sequence[Lock], host: str | None, is_running: Callable[[int], bool]
) -> list[Lock]:
    """Returns the locks whose process runs, or may run: processes of other hosts are not visible."""
    return [lock for lock in locks if lock.host != host or is_running(lock.pid)]


def refuse_if_locked(stack: str, locks: Sequence[Lock], host: str | None) -> None:
    """Exits with an error if one of the locks is valid."""
    if valid := find_valid_locks(locks, host, is_engine_running):
        sys.exit(
            f"the stack {stack} is currently locked by {len(valid)} lock(s):\n"
            + "\n".join(f"  {lock}" for lock in valid)
            + f"\nWait for the other process to end. If it has ended, run pulumi cancel --yes {stack}, and try again."
        )


def cancel_locks(stack: str, locks: Sequence[Lock]) -> None:
    if locks:
        run_pulumi("cancel", "--yes", stack)
    for lock in locks:
        print(f"removed the stale lock of {lock.created}: its process (pid {lock.pid}) has ended")
