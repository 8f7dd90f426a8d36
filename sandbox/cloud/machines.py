"""Virtual machines: systemd-nspawn containers on an overlay of an image, each in its own control group."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.cloud import addresses, host
from sandbox.cloud.ec2 import Instance
from sandbox.cloud.process_tree import mount_overlay, run_quietly

REBOOT = 133
"""Exit code of systemd-nspawn when the machine requests a reboot."""

SHUTDOWN_SECONDS = 30.0
"""A node that is killed before its server has ended stays in the cluster registry."""


def control_group(state: Path) -> str:
    """Returns the name of the parent of all control groups of the cloud with this state folder."""
    return f"ant-media-sandbox-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"


def hostname(address: str) -> str:
    return f"ip-{address.replace('.', '-')}"


def fqdn(address: str) -> str:
    return f"{hostname(address)}.{addresses.REGION}.compute.internal"


def render_seed(instance: Instance, user_data: bytes) -> dict[str, bytes]:
    """Returns the files of cloud-init's NoCloud data source by name."""
    meta = {"instance-id": instance.id, "local-hostname": fqdn(instance.private_address)}
    return {
        "user-data": user_data or b"#cloud-config\n{}\n",
        "meta-data": json.dumps(meta, indent=2).encode() + b"\n",
    }


class Machine:
    """The machine of one instance. It runs from `boot` until `process` exits; its disk exists until `remove`."""

    def __init__(
        self, instance: Instance, layers: Sequence[Path], user_data: bytes, ended: threading.Event
    ) -> None:
        self.instance = instance
        self.folder = host.STATE / "machines" / instance.id
        self.process: subprocess.Popen[bytes] | None = None
        self._ended = ended
        self._deadline: float | None = None
        upper, work, root = (self.folder / name for name in ("upper", "work", "root"))
        nocloud = upper / "var/lib/cloud/seed/nocloud"
        nocloud.mkdir(parents=True, exist_ok=True)
        for name, content in render_seed(instance, user_data).items():
            (nocloud / name).write_bytes(content)
            (nocloud / name).chmod(0o600)
        (upper / "etc").mkdir(exist_ok=True)
        (upper / "etc/hostname").write_text(hostname(instance.private_address) + "\n")
        mount_overlay(layers, upper, work, root)

    @property
    def is_stopping(self) -> bool:
        return self._deadline is not None

    def boot(self) -> None:
        groups = _control_groups(self.instance.id)
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
        command = [
            *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"),
            *(f"--machine={self.instance.id}", f"--hostname={hostname(self.instance.private_address)}"),
            *(
                f"--network-namespace-path=/run/netns/{self.instance.id}",
                # As on a real machine, root may close connections (ss --kill).
                "--capability=CAP_NET_ADMIN",
                "--resolv-conf=off",
                "--timezone=off",
            ),
            *("--setenv=TERM=dumb", "--setenv=SYSTEMD_COLORS=0"),
            *("--console=read-only", f"--directory={self.folder / 'root'}"),
            "systemd.show_status=1",
        ]
        # The shell joins the control groups before it executes nspawn: machines in one group would mix up their services.
        join = 'for group; do [ "$group" = -- ] && break; echo 0 >"$group/cgroup.procs"; shift; done; shift; exec "$@"'
        with (self.folder / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                ["sh", "-c", join, "join", *map(str, groups), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={
                    **os.environ,
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    # As on a real machine, root may set the parameters of its network (sysctl).
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                },
            )
        self._deadline = None
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._ended.set()

    def shut_down(self) -> None:
        """Requests a shutdown, as the power button does; `kill_if_overdue` enforces it."""
        if self.process and not self.is_stopping:
            self.process.send_signal(signal.SIGTERM)
            self._deadline = time.monotonic() + SHUTDOWN_SECONDS

    def kill_if_overdue(self) -> None:
        if self.process and self._deadline and time.monotonic() > self._deadline:
            self.process.kill()

    def find_exit_code(self) -> int | None:
        """Returns the exit code of a machine that has ended. None while it runs, and after `clean_up`."""
        return self.process.poll() if self.process else None

    def clean_up(self) -> None:
        """Removes what is left of a machine that has ended. Its disk stays."""
        self.process, self._deadline = None, None
        remove_control_groups(self.instance.id)

    def remove(self) -> None:
        run_quietly("umount", "--lazy", str(self.folder / "root"))
        shutil.rmtree(self.folder, ignore_errors=True)


def find_machine_init(nspawn: int) -> int | None:
    """Returns process 1 of the machine that an nspawn process runs, or None if it has not started yet."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        return int(children[0]) if children else None
    return None


def _control_groups(name: str = "") -> list[Path]:
    """Returns the control group in each hierarchy that systemd uses: two on hosts that also mount version 1."""
    base, group = Path("/sys/fs/cgroup"), control_group(host.STATE)
    if (base / "cgroup.procs").exists():
        return [base / group / name]
    return [
        base / tree / group / name
        for tree in ("systemd", "unified")
        if (base / tree / "cgroup.procs").exists()
    ]


def remove_control_groups(name: str = "") -> None:
    """Kills the processes in a machine's control groups, or in all, and removes the groups."""
    for top in _control_groups(name):
        for _ in range(50):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    for pid in map(int, (Path(folder) / "cgroup.procs").read_text().split()):
                        if pid:  # 0 is a process in another PID namespace
                            os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not top.exists():
                break
            time.sleep(0.02)
