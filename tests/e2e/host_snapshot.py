"""What of this host a sandbox may not change, and what of a sandbox may not stay."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.cloud.machines import control_group
from tests.e2e.running_cluster import LOOPBACK, STATE

# Counters and draws of the kernel's, which change while nobody does anything.
RESTLESS = (
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
    "net/netfilter/nf_conntrack_count",
)


@dataclass(frozen=True)
class HostSnapshot:
    sysctls: dict[str, str]
    mounts: frozenset[str]
    namespaces: str
    interfaces: str
    addresses: str
    routes: str
    nftables: str


def take_snapshot() -> HostSnapshot:
    return HostSnapshot(
        sysctls=_sysctls(),
        mounts=frozenset(line.split(" ", 1)[1] for line in Path("/proc/mounts").read_text().splitlines()),
        namespaces=_run("ip", "netns", "list"),
        interfaces=_run("ip", "-oneline", "link"),
        addresses=_run("ip", "-oneline", "address"),
        routes=_run("ip", "route", "show", "table", "all"),
        nftables=_run("nft", "list", "ruleset"),
    )


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _sysctls() -> dict[str, str]:
    top = Path("/proc/sys")
    found: dict[str, str] = {}
    for folder, _, files in os.walk(top):
        for file in files:
            path = Path(folder, file)
            name = str(path.relative_to(top))
            if name.startswith(RESTLESS) or not os.access(path, os.R_OK):
                continue
            try:
                found[name] = path.read_text(errors="replace")
            except OSError:  # some can only be written
                continue
    return found


def processes_of_sandbox(init: int) -> set[tuple[int, str]]:
    """Process id and start time of everything in the process tree of a sandbox."""
    tree = Path(f"/proc/{init}/ns/pid").readlink()
    found = {init}
    parents = {pid: _stat(pid)[0] for pid in _processes()}
    for pid in _processes():
        try:
            if Path(f"/proc/{pid}/ns/pid").readlink() == tree:
                found.add(pid)
        except OSError:
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {(pid, _stat(pid)[1]) for pid in found}


def left_of(processes: set[tuple[int, str]]) -> dict[str, object]:
    """Whatever of the tests' sandbox is still there, by what it is; nothing when it has been taken away."""
    group = control_group(STATE)
    left: dict[str, object] = {
        "processes": [_command(pid) for pid, started in processes if _stat(pid)[1] == started]
        + [
            _command(pid)
            for pid in _processes()
            if pid != os.getpid() and str(STATE) in _command(pid).split()
        ],
        "mounts": [line for line in _mounts_of_everybody() if str(STATE) in line],
        "control groups": [str(path) for path in Path("/sys/fs/cgroup").rglob(group)],
        "state folder": STATE.exists(),
        "listeners": [line for line in _run("ss", "-Hltn").splitlines() if f"{LOOPBACK}:" in line],
    }
    return {what: found for what, found in left.items() if found}


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _stat(pid: int) -> tuple[int, str]:
    """Parent and start time; of a process that is gone, neither."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[1]), fields[19]
    except OSError:
        return 0, "gone"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _mounts_of_everybody() -> set[str]:
    found: set[str] = set()
    for pid in _processes():
        try:
            found |= set(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        except OSError:
            continue
    return found
