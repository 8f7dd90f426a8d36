"""Host state that a sandbox must not change, and the remains of a removed sandbox."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.cloud.machines import control_group
from tests.e2e.running_cluster import LOOPBACK, STATE

# Kernel counters, random values and limits that the kernel lowers on a busy machine: they change by themselves.
VOLATILE_SYSCTLS = (
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-",
    "fs/quota",
    "kernel/hung_task_detect_count",
    "kernel/hung_task_warnings",
    "kernel/ns_last_pid",
    "kernel/perf_event_max_sample_rate",
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
        sysctls=_read_sysctls(),
        mounts=frozenset(line.split(" ", 1)[1] for line in Path("/proc/mounts").read_text().splitlines()),
        namespaces=_run("ip", "netns", "list"),
        interfaces=_run("ip", "-oneline", "link"),
        addresses=_run("ip", "-oneline", "address"),
        routes=_run("ip", "route", "show", "table", "all"),
        nftables=_run("nft", "list", "ruleset"),
    )


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _read_sysctls() -> dict[str, str]:
    top = Path("/proc/sys")
    found: dict[str, str] = {}
    for folder, _, files in os.walk(top):
        for file in files:
            path = Path(folder, file)
            name = str(path.relative_to(top))
            if name.startswith(VOLATILE_SYSCTLS) or not os.access(path, os.R_OK):
                continue
            try:
                found[name] = path.read_text(errors="replace")
            except OSError:  # some are write-only
                continue
    return found


def list_sandbox_processes(init_pid: int) -> set[tuple[int, str]]:
    """Returns PID and start time of each process in the process tree of a sandbox."""
    namespace = Path(f"/proc/{init_pid}/ns/pid").readlink()
    found = {init_pid}
    parents = {pid: _read_stat(pid)[0] for pid in _list_pids()}
    for pid in _list_pids():
        try:
            if Path(f"/proc/{pid}/ns/pid").readlink() == namespace:
                found.add(pid)
        except OSError:
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {(pid, _read_stat(pid)[1]) for pid in found}


def find_leftovers(processes: set[tuple[int, str]]) -> dict[str, object]:
    """Returns what remains of the tests' sandbox, by kind; empty after a complete removal."""
    group = control_group(STATE)
    leftovers: dict[str, object] = {
        "processes": [_read_command(pid) for pid, started in processes if _read_stat(pid)[1] == started]
        + [
            _read_command(pid)
            for pid in _list_pids()
            if pid != os.getpid() and str(STATE) in _read_command(pid).split()
        ],
        "mounts": [line for line in _list_all_mounts() if str(STATE) in line],
        "control groups": [str(path) for path in Path("/sys/fs/cgroup").rglob(group)],
        "state folder": STATE.exists(),
        "listeners": [line for line in _run("ss", "-Hltn").splitlines() if f"{LOOPBACK}:" in line],
    }
    return {kind: found for kind, found in leftovers.items() if found}


def _list_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _read_stat(pid: int) -> tuple[int, str]:
    """Returns the parent PID and start time of a process; `(0, "gone")` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[1]), fields[19]
    except OSError:
        return 0, "gone"


def _read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _list_all_mounts() -> set[str]:
    """Returns the mounts of every process, in all mount namespaces."""
    found: set[str] = set()
    for pid in _list_pids():
        try:
            found |= set(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        except OSError:
            continue
    return found
