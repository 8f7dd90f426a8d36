"""Machines: systemd-nspawn over an overlay of an image, seeded for cloud-init, each in a control group of its own."""

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
from sandbox.cloud.process_tree import mount_overlay, quietly

REBOOT = 133
"""What systemd-nspawn exits with when its machine asked for a reboot."""

SHUTDOWN_SECONDS = 15.0


def control_group(state: Path) -> str:
    """The name of the folder that holds the control groups of all machines of the cloud with this state."""
    return f"ant-media-sandbox-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"


def hostname(address: str) -> str:
    return f"ip-{address.replace('.', '-')}"


def full_name(address: str) -> str:
    return f"{hostname(address)}.{addresses.REGION}.compute.internal"


def seed(instance: Instance, user_data: bytes) -> dict[str, bytes]:
    """cloud-init's NoCloud files: what the instance's user data and metadata are on EC2."""
    meta = {"instance-id": instance.id, "local-hostname": full_name(instance.private_address)}
    return {
        "user-data": user_data or b"#cloud-config\n{}\n",
        "meta-data": json.dumps(meta, indent=2).encode() + b"\n",
    }


class Machine:
    """One instance's machine. Its disk lives until `remove`; it runs between `boot` and the end of `process`."""

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
        for name, content in seed(instance, user_data).items():
            (nocloud / name).write_bytes(content)
            (nocloud / name).chmod(0o600)
        (upper / "etc").mkdir(exist_ok=True)
        (upper / "etc/hostname").write_text(hostname(instance.private_address) + "\n")
        mount_overlay(layers, upper, work, root)

    @property
    def stopping(self) -> bool:
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
                "--resolv-conf=off",
                "--timezone=off",
            ),
            *("--setenv=TERM=dumb", "--setenv=SYSTEMD_COLORS=0"),
            *("--console=read-only", f"--directory={self.folder / 'root'}"),
            "systemd.show_status=1",
        ]
        # The shell joins the control groups before it becomes nspawn: machines that share one mix up their services.
        join = 'for group; do [ "$group" = -- ] && break; echo 0 >"$group/cgroup.procs"; shift; done; shift; exec "$@"'
        with (self.folder / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                ["sh", "-c", join, "join", *map(str, groups), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self._deadline = None
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._ended.set()

    def shut_down(self) -> None:
        """As the power button does; `press_on` cuts the power when that takes too long."""
        if self.process and not self.stopping:
            self.process.send_signal(signal.SIGTERM)
            self._deadline = time.monotonic() + SHUTDOWN_SECONDS

    def press_on(self) -> None:
        if self.process and self._deadline and time.monotonic() > self._deadline:
            self.process.kill()

    def gone(self) -> int | None:
        """The exit code of a machine that is not running any more; asked once, it has been taken note of."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process, self._deadline = None, None
        remove_control_groups(self.instance.id)
        return status

    def remove(self) -> None:
        quietly("umount", "--lazy", str(self.folder / "root"))
        shutil.rmtree(self.folder, ignore_errors=True)


def leader(nspawn: int) -> int | None:
    """Process 1 of the machine that this nspawn process runs, if it has come that far."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        return int(children[0]) if children else None
    return None


def _control_groups(name: str = "") -> list[Path]:
    """A folder in each hierarchy that systemd uses: one, or two on a host that still mounts version 1 beside it."""
    base, group = Path("/sys/fs/cgroup"), control_group(host.STATE)
    if (base / "cgroup.procs").exists():
        return [base / group / name]
    return [
        base / tree / group / name
        for tree in ("systemd", "unified")
        if (base / tree / "cgroup.procs").exists()
    ]


def remove_control_groups(name: str = "") -> None:
    """A machine's control groups, or all of them; whatever still runs in one is killed first."""
    for top in _control_groups(name):
        for _ in range(50):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    for pid in map(int, (Path(folder) / "cgroup.procs").read_text().split()):
                        if pid:  # 0 stands for one that this process cannot see
                            os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not top.exists():
                break
            time.sleep(0.02)
