"""The cloud is one process tree with a network, mounts and process ids of its own, so that its end is the end of all of it.

keeper      on the host: holds the lock, sweeps up when everything else is gone, however it ended
└─ init     process 1 of the tree: reaps; when it dies the kernel kills whatever else is in there
   └─ daemon
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    _check(_libc.setns(descriptor, kind))


def inotify_instance() -> int:
    """A file descriptor of one more; OSError where the host allows none."""
    descriptor: int = _libc.inotify_init1(os.O_CLOEXEC)
    _check(min(descriptor, 0))
    return descriptor


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    _check(_libc.mount(source.encode(), target.encode(), filesystem.encode(), flags, options.encode()))


def mount_overlay(layers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mounts `layers` (first on top) at `target`; what is written there goes to `upper`."""
    for folder in (upper, work, target):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    try:
        mount("overlay", str(target), "overlay", options=options)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{upper} cannot be laid over a machine image ({error.strerror}):"
            " SANDBOX_STATE and XDG_CACHE_HOME must be on a disk, not on an overlay or a network",
        ) from error


def die_with_parent() -> None:
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def private_mounts() -> None:
    """A mount table of this process's own: the host's changes still arrive, none goes back."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def own_proc() -> None:
    """/proc of the process id namespace that this process is in."""
    mount("proc", "/proc", "proc")


class Lock:
    """Held by the keeper for as long as its tree lives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> int | None:
        """The descriptor that holds the lock, or None when another process holds it."""
        # User data holds the machines' host keys: what is in here is root's alone.
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if self.path.exists() and os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                return descriptor
            os.close(descriptor)  # its last holder has removed the file


@dataclass(frozen=True)
class HostView:
    """Descriptors by which a process of the tree gets back what the tree does not have: the host's network and mounts."""

    network: int
    mounts: int
    root: int
    """The root directory in those mounts, which is another than theirs for a process in a chroot."""

    @classmethod
    def here(cls) -> "HostView":
        return cls(*(os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", "/proc/self/ns/mnt", "/")))

    def enter(self) -> None:
        setns(self.network, CLONE_NEWNET)
        setns(self.mounts, CLONE_NEWNS)
        os.fchdir(self.root)
        os.chroot(".")


def keep(daemon: Callable[[HostView], None], pid_file: Path, sweep: Callable[[], None]) -> None:
    """Runs `daemon` in a new tree until it ends or this process is told to end."""
    view = HostView.here()
    unshare(CLONE_NEWPID)
    init = os.fork()
    if init == 0:
        _init(daemon, view)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os.kill(init, signal.SIGKILL))
    pid_file.write_text(f"{os.getpid()} {init}\n")
    os.waitpid(init, 0)
    sweep()


def _init(daemon: Callable[[HostView], None], view: HostView) -> None:
    die_with_parent()
    unshare(CLONE_NEWNET)
    private_mounts()
    own_proc()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            daemon(view)
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    while os.wait()[0] != child:
        pass
    os._exit(0)


def run_inside(
    init: int,
    command: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    files: Mapping[Path, Path],
) -> int:
    """Runs a command in the tree, with the host's files but for `files` (path → shown there); returns its exit code.

    The command is asked for inside, where process ids are the tree's.
    """
    for kind, flag in (("pid", CLONE_NEWPID), ("net", CLONE_NEWNET)):
        with Path(f"/proc/{init}/ns/{kind}").open("rb") as namespace:
            setns(namespace.fileno(), flag)
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            private_mounts()
            own_proc()
            for path, shown in files.items():
                mount(str(shown), str(path.resolve()), flags=MS_BIND)
            argv = list(command())
            os.execvpe(argv[0], argv, dict(environment))
        except OSError as error:
            print(f"cannot run that in the local cloud: {error}", file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(127)
    # A terminal sends its signals to both; the command decides what they mean. What is sent to this process is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while os.WIFSTOPPED(state := os.waitpid(child, os.WUNTRACED)[1]):
        # A machine that shuts down stops all its processes before it kills them, and nsenter stops with what it runs.
        if os.WSTOPSIG(state) == signal.SIGSTOP:
            os.kill(child, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(state)
    return status if status >= 0 else 128 - status


def end(pid_file: Path, lock: Lock) -> int | None:
    """Ends the tree, if there is one, and returns when all of it is gone, with the descriptor that holds the lock now."""
    deadline = time.monotonic() + 20
    while (descriptor := lock.take()) is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, LookupError):  # still on its way up, or already on its way down
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)
        time.sleep(0.05)
    return descriptor


def quietly(*command: str) -> None:
    """Runs a command whose failure says that there was nothing to do."""
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
