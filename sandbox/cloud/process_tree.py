"""The process tree of the local cloud, in its own network, mount and PID namespaces.

keeper      runs on the host, holds the lock and cleans up after the tree has ended
└─ init     process 1 of the PID namespace: reaps processes; when it ends, the kernel kills the rest of the tree
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


def open_inotify_instance() -> int:
    """Returns the file descriptor of a new inotify instance; raises OSError if the host's limit is reached."""
    descriptor: int = _libc.inotify_init1(os.O_CLOEXEC)
    _check(min(descriptor, 0))
    return descriptor


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    _check(_libc.mount(source.encode(), target.encode(), filesystem.encode(), flags, options.encode()))


def mount_overlay(layers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mounts an overlay of `layers` (the topmost first) at `target`; `upper` receives the writes."""
    for folder in (upper, work, target):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    try:
        mount("overlay", str(target), "overlay", options=options)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{upper} cannot be the upper layer of an overlay mount ({error.strerror}):"
            " put SANDBOX_STATE and XDG_CACHE_HOME on a disk, not on an overlay or network file system",
        ) from error


def die_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def unshare_mounts() -> None:
    """Creates a mount namespace; mounts of the host still propagate into it, none propagate back."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def mount_proc() -> None:
    """Mounts /proc for the PID namespace of this process."""
    mount("proc", "/proc", "proc")


class Lock:
    """The lock file that the keeper holds while the tree runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> int | None:
        """Returns a descriptor that holds the lock, or None if another process holds it."""
        # The folder is private to root: user data contains the machines' host keys.
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
            os.close(descriptor)  # the last holder has removed the file


@dataclass(frozen=True)
class HostView:
    """Descriptors of the host's namespaces, with which a process of the tree can return to them."""

    network: int
    mounts: int
    root: int
    """The root directory, which differs from that of the mount namespace in a chroot."""

    @classmethod
    def open(cls) -> "HostView":
        return cls(*(os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", "/proc/self/ns/mnt", "/")))

    def enter(self) -> None:
        """Moves this process to the host's network and mounts."""
        setns(self.network, CLONE_NEWNET)
        setns(self.mounts, CLONE_NEWNS)
        os.fchdir(self.root)
        os.chroot(".")


def run_keeper(daemon: Callable[[HostView], None], pid_file: Path, clean_up: Callable[[], None]) -> None:
    """Runs `daemon` in a new process tree until it ends or this process is terminated."""
    view = HostView.open()
    unshare(CLONE_NEWPID)
    init = os.fork()
    if init == 0:
        _init(daemon, view)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os.kill(init, signal.SIGKILL))
    pid_file.write_text(f"{os.getpid()} {init}\n")
    os.waitpid(init, 0)
    clean_up()


def _init(daemon: Callable[[HostView], None], view: HostView) -> None:
    die_with_parent()
    unshare(CLONE_NEWNET)
    unshare_mounts()
    mount_proc()
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
    """Runs a command in the tree and returns its exit code.

    The command sees the host's files, except for `files` (path → replacement). `command` is called inside the
    tree's PID namespace.
    """
    for kind, flag in (("pid", CLONE_NEWPID), ("net", CLONE_NEWNET)):
        with Path(f"/proc/{init}/ns/{kind}").open("rb") as namespace:
            setns(namespace.fileno(), flag)
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            unshare_mounts()
            mount_proc()
            for path, replacement in files.items():
                mount(str(replacement), str(path.resolve()), flags=MS_BIND)
            argv = list(command())
            os.execvpe(argv[0], argv, dict(environment))
        except OSError as error:
            print(f"cannot run the command in the local cloud: {error}", file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(127)
    # A terminal sends SIGINT and SIGQUIT to both processes. Other signals are forwarded to the command.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while os.WIFSTOPPED(state := os.waitpid(child, os.WUNTRACED)[1]):
        # systemd stops all processes before it kills them at shutdown, and nsenter stops with its child.
        if os.WSTOPSIG(state) == signal.SIGSTOP:
            os.kill(child, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(state)
    return status if status >= 0 else 128 - status


def end_tree(pid_file: Path, lock: Lock) -> int | None:
    """Ends the tree and returns the lock's descriptor when all processes have ended.

    Returns None if the lock is still held after a minute. On a busy machine the keeper deletes the disks for many seconds.
    """
    deadline = time.monotonic() + 60
    while (descriptor := lock.take()) is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, LookupError):  # the tree is still starting or already ending
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)
        time.sleep(0.05)
    return descriptor


def run_quietly(*command: str) -> None:
    """Runs a command and ignores its output and failure."""
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
