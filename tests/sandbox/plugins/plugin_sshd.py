"""An sshd of Debian 13, from the sandbox's machine image, on a loopback port with generated keys."""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import asyncssh

from sandbox.cloud.images import BASE, FOLDER, build_missing

# Runs sshd in an overlay of the image. Tests read what commands write under /scratch.
_START = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount -t proc proc "$FOLDER/root/proc"
mount --bind /dev "$FOLDER/root/dev"
mount --bind "$FOLDER/scratch" "$FOLDER/root/scratch"
exec setpriv --pdeathsig TERM chroot "$FOLDER/root" /usr/sbin/sshd -D -e -f /etc/ssh/test_config -p "$PORT"
"""
PASSWORD = "correct horse"
_CONFIG = """
ListenAddress 127.0.0.1
HostKey /etc/ssh/test_host_key
AuthorizedKeysFile /etc/ssh/test_authorized_keys
PermitRootLogin yes
UsePAM no
PidFile none
AcceptEnv WELCOME
"""


class Sshd:
    """A machine to run commands on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("upper/etc/ssh", "upper/run/sshd", "upper/scratch", "work", "root", "scratch"):
            (folder / part).mkdir(parents=True)
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        ssh = folder / "upper/etc/ssh"
        (ssh / "test_config").write_text(_CONFIG)
        (ssh / "test_host_key").write_bytes(self.host_key.export_private_key())
        (ssh / "test_host_key").chmod(0o600)
        (ssh / "test_authorized_keys").write_bytes(self.user_key.export_public_key())
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        (folder / "upper/etc/shadow").write_text(f"root:{hashed}:20000:0:99999:7:::\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connection(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "private_key": self.user_key.export_private_key().decode(),
            "host_key": self.host_key.export_public_key().decode(),
        }

    def scratch(self, name: str) -> Path:
        return self.folder / "scratch" / name

    def start(self) -> None:
        built = sorted(FOLDER.glob(f"{BASE}-????????????"))
        layers = str(built[0] if built else build_missing()[BASE][0])
        command = ["unshare", "--mount", "--propagation", "private", "--", "bash", "-c", _START]
        environment = {"LAYERS": layers, "FOLDER": str(self.folder), "PORT": str(self.port)}
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stderr=(self.folder / "log").open("ab")
        )
        deadline = time.monotonic() + 300
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(60)
