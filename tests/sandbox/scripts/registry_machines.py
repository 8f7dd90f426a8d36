"""Booted machines with the program's scripts, Debian's Valkey and HAProxy, in a network without packages."""

import socket
from contextlib import closing

from cluster.machine_scripts import INSTALLED_SCRIPTS, ScriptFolder, pack_scripts, unpack_scripts
from sandbox.cloud.images import Layers
from tests.sandbox.images.machines import Machines, wait_until

DATABASE, BALANCER, NODE = "10.0.0.5", "10.0.0.4", "10.0.0.8"
REPLICATION_PASSWORD = "password-of-the-replication"
PATH = "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A machine and its scripts."""

    def __init__(
        self, machines: Machines, address: str, folder: ScriptFolder, image: Layers | None = None
    ) -> None:
        self._machines = machines
        self.address = address
        machines.boot(address, image)
        wait_until("the machine has booted", self._has_booted)
        # Valkey and HAProxy are in the image already: this network has no packages.
        self.shell(
            f"printf '#!/bin/sh' >/usr/local/sbin/apt-get && chmod +x /usr/local/sbin/apt-get && mkdir {INSTALLED_SCRIPTS} && cd {INSTALLED_SCRIPTS} &&"
            " awk '/^=== / { file = $2; next } { print > file }' && chmod +x *",
            unpack_scripts(pack_scripts(folder)),
        )

    def _has_booted(self) -> bool:
        try:
            state = self._machines.shell(
                self.address, "systemctl is-system-running || true", timeout=120
            ).stdout.strip()
        except (IndexError, FileNotFoundError):  # it has no first process yet
            return False
        return state in ("running", "degraded")

    def shell(self, command: str, text: str = "") -> str:
        done = self._machines.shell(self.address, f"export {PATH}; {command}", text, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fail(self, command: str) -> str:
        """Returns the errors of a command that must fail."""
        done = self._machines.shell(self.address, f"export {PATH}; {command}", timeout=250)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def install_valkey(self, role: str, database: str = DATABASE) -> str:
        """Runs install-valkey.sh and returns its output."""
        command = f"{INSTALLED_SCRIPTS}/install-valkey.sh {role} {database} {BALANCER}"
        output = self.shell(command, f"{REPLICATION_PASSWORD}\n")
        assert REPLICATION_PASSWORD not in output
        return output

    def install_database(self) -> str:
        """Installs the database and returns the id of the registry."""
        return self.install_valkey("database", self.address).rpartition("Registry ")[2].strip()

    def set_password(self, mode: str, password: str) -> None:
        output = self.shell(f"{INSTALLED_SCRIPTS}/set-registry-password.sh {mode}", f"{password}\n")
        assert password not in output

    def signal(self, signal: str) -> None:
        self.shell(f"systemctl kill --signal={signal} valkey-server")

    @property
    def valkey_process(self) -> str:
        return self.shell("systemctl show valkey-server --property MainPID --value")


class Client:
    """A connection to Valkey, as a node keeps it. Its replies must have one line each."""

    def __init__(self, password: str, address: str = DATABASE, user: str = "default") -> None:
        self._socket = socket.create_connection((address, 6379), timeout=60)
        self._replies = self._socket.makefile("r", newline="\r\n")
        self.login = self.ask(f"AUTH {user} {password}")

    def ask(self, command: str) -> str:
        self._socket.sendall(f"{command}\r\n".encode())
        reply = self._replies.readline().strip()
        return self._replies.readline().strip() if reply[:1] == "$" and reply != "$-1" else reply

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def ask(password: str, address: str, command: str) -> str:
    """Returns the reply to one command."""
    with closing(Client(password, address)) as client:
        return client.ask(command)
