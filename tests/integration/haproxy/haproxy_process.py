"""Runs the HAProxy of Debian 13 with a rendered haproxy.cfg, as its systemd unit does."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.project import PROJECT

DOMAIN = "live.example.com"
BALANCER = "10.0.0.4"
USER, PASSWORD = "admin", "correct horse"
CREDENTIALS = f'userlist statistics\n    user {USER} insecure-password "{PASSWORD}"\n'

# Installed where they are on a machine.
SCRIPTS = PROJECT / "templates/scripts"
_ROTATE_SCRIPT = f"{INSTALLED_SCRIPTS}/rotate-ticket-keys.sh"

# Mounts an overlay for this process alone, and /dev/log into the chroot, as the unit does.
_START = f"""
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount -t proc proc "$FOLDER/root/proc"
mount --bind "$FOLDER/log" "$FOLDER/root/var/lib/haproxy/dev"
install -m 0755 -t "$FOLDER/root{INSTALLED_SCRIPTS}" {SCRIPTS}/every-machine/*.sh {SCRIPTS}/balancer/*.sh
chroot "$FOLDER/root" bash {_ROTATE_SCRIPT}
exec setpriv --pdeathsig TERM chroot "$FOLDER/root" haproxy "$@"
"""


KEY_TYPES = {
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "rsa": ["-newkey", "rsa:2048"],
}


PATIENT_CHECKS = "timeout check 1050ms", "timeout check 20s"
"""A text of haproxy.cfg, and what replaces it in tests that are not about health checks."""

STRETCH = 4


def stretch(text: str) -> str:
    """Multiplies the times of a configuration's health checks and media responses by STRETCH.

    A busy machine pauses for some tenths of a second, about as long as haproxy.cfg leaves a node that pauses for 2 s.
    """

    def multiply(match: re.Match[str]) -> str:
        return f"{match[1]} {STRETCH * int(match[2]) * (1 if match[3] == 'ms' else 1000)}ms"

    times = r"\b(timeout check|inter|fastinter|downinter|set-timeout server) (\d+)(ms|s)\b"
    return re.sub(times, multiply, text)


def make_certificate(folder: Path, key_type: str = "ecdsa") -> Path:
    """Returns a file with certificate and key, as HAProxy reads them. The CA certificate is the file `authority` beside it."""

    def make(name: str, *options: str) -> bytes:
        key, certificate = folder / f"{name}.key", folder / name
        files = ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
        command = ["openssl", "req", "-x509", *KEY_TYPES[key_type], *files, *options]
        subprocess.run(command, check=True, capture_output=True)
        return certificate.read_bytes() + key.read_bytes()

    make("authority", "-subj", "/CN=Authority", "-addext", "keyUsage=critical,keyCertSign")
    names = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}"]
    usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    signer = ["-CA", str(folder / "authority"), "-CAkey", str(folder / "authority.key")]
    pem = folder / "pem"
    pem.write_bytes(make("certificate", *names, *usage, *signer))
    return pem


class HAProxy:
    """An HAProxy with master and workers. All its processes end with `stop` or with the tests' process.

    Its health checks wait longer than haproxy.cfg allows, unless they are `exact`: a busy machine pauses the dummy nodes, and a
    node that is down for two seconds fails any test.
    """

    def __init__(self, layers: str, folder: Path, certificate: Path, *, exact: bool = False) -> None:
        self._exact = exact
        self._layers = layers
        self._folder = folder
        for part in (
            "upper/etc/haproxy/certs",
            "upper/run/haproxy",
            f"upper{INSTALLED_SCRIPTS}",
            "work",
            "root",
            "log",
        ):
            (folder / part).mkdir(parents=True)
        configuration = folder / "upper/etc/haproxy"
        (configuration / "certs/cluster.pem").write_bytes(certificate.read_bytes())
        (configuration / "credentials.cfg").write_text(CREDENTIALS)
        # As reload-haproxy.sh leaves it.
        (folder / "upper/run/haproxy/server-state").write_text("1\n")
        self._configuration = configuration
        self._output = folder / "output"
        self._process: subprocess.Popen[bytes] | None = None
        self._journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._journal.bind(str(folder / "log/log"))
        (folder / "log/log").chmod(0o666)
        self._log: list[str] = []
        threading.Thread(target=self._read_journal, daemon=True).start()

    def _read_journal(self) -> None:
        while line := self._journal.recv(65536):
            self._log.append(line.decode(errors="replace").rstrip())

    def _popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        # A file and not a pipe: HAProxy prints a line for each server that goes down, and would block on a full pipe.
        with self._output.open("wb") as output:
            return self._popen_with_output(output, *arguments)

    def _popen_with_output(self, output: IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "--",
                "bash",
                "-c",
                _START,
                "haproxy",
                *arguments,
            ],
            env={
                "PATH": os.environ["PATH"],
                "LAYERS": self._layers,
                "FOLDER": str(self._folder),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def _write(self, text: str) -> None:
        """Writes haproxy.cfg: into the overlay's upper folder before it is mounted, later through the mount of the process."""
        folder = self._configuration
        if self._process:
            folder = self.root / "etc/haproxy"
        if not self._exact:
            text = text.replace(*PATIENT_CHECKS)
        (folder / "haproxy.cfg").write_text(text)

    def validate(self, text: str) -> tuple[int, str]:
        """Returns the exit code and the output of `haproxy -c`."""
        self._write(text)
        process = self._popen("-c", "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/credentials.cfg")
        process.wait(timeout=120)
        return process.returncode, self._output.read_text()

    def start(self, text: str) -> None:
        self._write(text)
        files = ("-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/credentials.cfg")
        self._process = self._popen("-Ws", "-p", "/run/haproxy.pid", "-S", "/run/haproxy-master.sock", *files)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            # The worker is ready before the master, which re-executes itself when the worker runs.
            if "Name: HAProxy" in self.ask("show info") and " worker " in self.ask_master("show proc"):
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"HAProxy did not start: {self._output.read_text()}")

    def reload(self, text: str) -> None:
        """Reloads with a new configuration, which must succeed."""
        answer = self.try_reload(text)
        assert answer.startswith("Success=1"), answer

    def try_reload(self, text: str) -> str:
        """Reloads with a new configuration and returns the master's response. Unlike reload-haproxy.sh, it saves no state."""
        self._write(text)
        answer = self.ask_master("reload")
        self.wait_for_old_workers()
        return answer

    def reload_with_script(self, text: str) -> None:
        """Reloads with reload-haproxy.sh."""
        self._write(text)
        self.run_script("reload-haproxy.sh")
        self.wait_for_old_workers()

    def wait_for_old_workers(self) -> None:
        """Waits until only the newest worker accepts connections. The others may get their signal later than it is ready."""
        deadline = time.monotonic() + 60
        while not (workers := self._list_workers()) or any(
            "Stopping: 0" in self.ask_master(f"@!{old} show info") for old in workers[1:]
        ):
            assert time.monotonic() < deadline, "an old worker accepts connections"
            time.sleep(0.02)

    def _list_workers(self) -> list[str]:
        """Returns the PIDs of the workers, the newest first."""
        processes = [line.split() for line in self.ask_master("show proc").splitlines()]
        return [process[0] for process in processes if process[1:2] == ["worker"]]

    def rotate_ticket_keys(self) -> subprocess.CompletedProcess[str]:
        """Runs rotate-ticket-keys.sh, as a systemd timer does twice a day."""
        command = ["chroot", str(self.root), "bash", _ROTATE_SCRIPT]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def start_script(
        self, name: str, *arguments: str, input: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts one of the balancer's scripts, in a process group of its own.

        `systemctl` succeeds, and shows what is in /run/active-state. `systemd-run` writes its arguments to /run/timers.
        """
        stubs = {
            "systemctl": '[ "$1" != show ] || cat /run/active-state 2>/dev/null || echo active',
            "systemd-run": 'echo "$*" >>/run/timers',
        }
        for stub, text in stubs.items():
            file = self.root / "usr/local/bin" / stub
            file.write_text(f"#!/bin/sh\n{text}\n")
            file.chmod(0o755)
        with tempfile.TemporaryFile("w+") as file:
            file.write(input)
            file.seek(0)
            return subprocess.Popen(
                ["chroot", str(self.root), "bash", f"{INSTALLED_SCRIPTS}/{name}", *arguments],
                env=os.environ | (environment or {}),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,
            )

    def run_script(self, name: str, *arguments: str, input: str = "") -> str:
        """Runs one of the balancer's scripts, which must succeed, and returns its output."""
        process = self.start_script(name, *arguments, input=input)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def run_shell(self, script: str) -> None:
        """Runs shell commands in its file system, with its mounts."""
        assert self._process
        target = f"--target={self._process.pid}"
        subprocess.run(["nsenter", target, "--mount", "--root", "bash", "-ec", script], check=True)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=60)
            # A master that is terminated while it re-executes itself leaves its worker running. systemd would kill the worker too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def root(self) -> Path:
        """The root of its file system."""
        assert self._process
        return Path(f"/proc/{self._process.pid}/root")

    def _ask(self, path: str, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            try:
                client.connect(str(self.root / path))
                client.sendall(command.encode() + b"\n")
                client.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: client.recv(65536), b"")).decode()
            except OSError as error:
                return str(error)

    def ask_master(self, command: str) -> str:
        """Returns the master's response to a command on its socket."""
        return self._ask("run/haproxy-master.sock", command)

    def ask(self, command: str) -> str:
        """Returns the newest worker's response to a command on the runtime socket."""
        return self._ask("run/haproxy/admin.sock", command)

    def server_states(self) -> dict[str, str]:
        """Returns UP, DOWN, … by `backend/server`."""
        rows = [
            line.split(",")
            for line in self.ask("show stat -1 4 -1").splitlines()
            if line[:1] not in ("#", "")
        ]
        return {f"{row[0]}/{row[1]}": row[17] for row in rows}

    def find_log_lines(self, text: str, seconds: float = 60) -> list[str]:
        """Returns the log lines that contain `text`. Waits up to `seconds` for the first one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not any(text in line for line in self._log):
            time.sleep(0.02)
        return [line for line in self._log if text in line]
