"""Finds and ends Pulumi's plugin processes whose engine was killed.

Such a process goes on with what the engine had asked for: it creates resources that recovery would miss, or runs a script
that the next update runs too. Nothing can read its result.
"""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from operations.engine import ROOT

_COMMAND = "resource-command"
_GRACE = 5
"""Seconds from SIGTERM to SIGKILL."""
_PLUGIN = re.compile(r"(pulumi-)?(?P<name>(resource|language|analyzer)-[\w-]+)")
# The engine passes the address of its own server to each plugin.
_ENGINE_ADDRESS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):\d+")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    name: str
    """Its name for the kernel, at most 15 characters."""
    arguments: tuple[str, ...]

    @property
    def plugin(self) -> str | None:
        """The plugin's name, such as `resource-command`; None for another program.

        A plugin that is a script comes after its interpreter's arguments.
        """
        if not any(_ENGINE_ADDRESS.fullmatch(argument) for argument in self.arguments[1:]):
            return None
        matches = (_PLUGIN.fullmatch(argument.rpartition("/")[2]) for argument in self.arguments[:4])
        return next((match["name"] for match in matches if match), None)

    @property
    def is_engine(self) -> bool:
        return self.name == "pulumi"

    def __str__(self) -> str:
        return f"pulumi-{self.plugin} (pid {self.pid})"


def find_orphans(processes: Mapping[int, Process]) -> list[Process]:
    """Returns the plugin processes that no running engine has started. `processes` are by pid."""

    def has_engine(process: Process | None) -> bool:
        while process and not process.is_engine:
            process = processes.get(process.parent)
        return process is not None

    return [process for process in processes.values() if process.plugin and not has_engine(process)]


def end_orphans(stack: str) -> None:
    """Ends the orphaned plugins of a stack. Names others, which may belong to it, and leaves them alone.

    A plugin is the stack's if this user started it in this project with PULUMI_STACK set to the stack, as make does.
    """
    for process in find_orphans(_read_processes()):
        try:
            stack_of_process = _read_stack(process.pid)
            is_own = Path(f"/proc/{process.pid}").stat().st_uid == os.getuid() and any(
                Path(f"/proc/{process.pid}/cwd").samefile(folder) for folder in (ROOT, Path.cwd())
            )
        except OSError:  # it has ended, or is another user's
            continue
        if not is_own or stack_of_process not in (stack, None):
            continue
        if stack_of_process is None:
            print(
                f"{process} of an interrupted run still runs, and which stack it works on is unknown; "
                f"if it is this one, run kill {process.pid}"
            )
        elif _end(process):
            scripts = "; a script that it had started may go on running on its machine"
            print(f"ended {process}, whose engine was killed{scripts if process.plugin == _COMMAND else ''}")
        else:
            print(f"{process} of an interrupted run still runs, and cannot be ended")


def _end(process: Process) -> bool:
    """Ends a process. Returns False if it still runs."""
    # A file descriptor, unlike a pid, cannot come to mean another process.
    handle = os.pidfd_open(process.pid)
    try:
        if _read_process(process.pid) != process:
            return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            deadline = time.monotonic() + _GRACE
            while time.monotonic() < deadline:
                if _has_ended(process.pid):
                    return True
                time.sleep(0.05)
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _has_ended(pid: int) -> bool:
    process = _read_process(pid)
    return process is None or not process.arguments  # a zombie has no arguments


def _read_processes() -> dict[int, Process]:
    """Returns all processes by pid; none where there is no /proc, as on macOS."""
    found = (_read_process(int(folder.name)) for folder in Path("/proc").glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def _read_process(pid: int) -> Process | None:
    folder = Path(f"/proc/{pid}")
    try:
        arguments = tuple(folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
        # The name is in parentheses, and may contain any character.
        before, _, after = folder.joinpath("stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    return Process(pid, int(after.split()[1]), before.partition("(")[2], arguments)


def _read_stack(pid: int) -> str | None:
    """Returns a process's PULUMI_STACK, without the organization."""
    variables: Iterator[str] = iter(
        Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    )
    values = (text.partition("=")[2] for text in variables if text.startswith("PULUMI_STACK="))
    return next((value.rpartition("/")[2] for value in values if value), None)
