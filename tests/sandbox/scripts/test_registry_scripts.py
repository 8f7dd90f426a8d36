"""Tests the scripts of the database machine with Debian's Valkey on a booted machine."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from cluster.machine_scripts import ScriptFolder, bundle_scripts
from components.remote_script import INSTALLED
from sandbox.cloud.images import build_missing
from tests.sandbox.images.machines import Machines, enter_network, install_valkey, wait_until

ADDRESS = "10.0.0.5"
FIRST, SECOND = "first-password-of-the-nodes", "second-password-of-the-nodes"
PATH = "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Client:
    """A connection to Valkey, as a node keeps it."""

    def __init__(self, password: str) -> None:
        self._socket = socket.create_connection((ADDRESS, 6379), timeout=10)
        self._replies = self._socket.makefile("r", newline="\r\n")
        self.login = self.ask(f"AUTH {password}")

    def ask(self, command: str) -> str:
        """Returns the reply, which must be one line."""
        self._socket.sendall(f"{command}\r\n".encode())
        return self._replies.readline().strip()

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def admits(password: str) -> bool:
    with closing(Client(password)) as client:
        return client.login == "+OK"


class Database:
    """The database machine and its scripts."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def shell(self, command: str, text: str = "") -> str:
        done = self._machines.shell(ADDRESS, f"export {PATH}; {command}", text, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fail(self, command: str) -> str:
        """Returns the errors of a command that must fail."""
        done = self._machines.shell(ADDRESS, f"export {PATH}; {command}", timeout=120)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def install(self) -> str:
        """Runs install-valkey.sh and returns the id of the registry."""
        output = self.shell(f"{INSTALLED}/install-valkey.sh {ADDRESS}")
        return output.rpartition("Registry ")[2].strip()

    def set_password(self, mode: str, password: str) -> None:
        output = self.shell(f"{INSTALLED}/set-registry-password.sh {mode}", f"{password}\n")
        assert password not in output

    @property
    def process(self) -> str:
        return self.shell("systemctl show valkey-server --property MainPID --value")


def has_booted(machines: Machines) -> bool:
    try:
        state = machines.shell(ADDRESS, "systemctl is-system-running || true").stdout.strip()
    except (IndexError, FileNotFoundError):  # it has no first process yet
        return False
    return state in ("running", "degraded")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    image = install_valkey(tmp_path_factory.mktemp("database"), build_missing()["debian-13"])
    machines = Machines(tmp_path_factory.mktemp("machines"), image)
    try:
        with enter_network(machines):
            machines.boot(ADDRESS)
            database = Database(machines)
            wait_until("the machine has booted", lambda: has_booted(machines))
            # Valkey is in the image already: this network has no packages.
            database.shell(
                f"printf '#!/bin/sh' >/usr/local/sbin/apt-get && chmod +x /usr/local/sbin/apt-get && mkdir {INSTALLED} && cd {INSTALLED} &&"
                " awk '/^=== / { file = $2; next } { print > file }' && chmod +x *.sh",
                bundle_scripts(ScriptFolder.DATABASE),
            )
            yield database
    finally:
        machines.stop()


@pytest.fixture
def database(machine: Database) -> Database:
    """The database of a cluster that uses the first password."""
    machine.install()
    machine.set_password("only", FIRST)
    return machine


def test_password_is_rotated_without_a_restart_and_both_are_valid_meanwhile(database: Database) -> None:
    process = database.process
    with closing(Client(FIRST)) as node:
        database.set_password("add", SECOND)
        assert node.ask("PING") == "+PONG"
        assert admits(FIRST)
        assert admits(SECOND)
        database.set_password("only", SECOND)
        # A node that still has the old password keeps the connections that it has.
        assert node.ask("PING") == "+PONG"
    assert not admits(FIRST)
    assert admits(SECOND)
    assert database.process == process


def test_password_that_is_taken_back_halfway_is_the_only_one_in_the_end(database: Database) -> None:
    database.set_password("add", SECOND)
    # The update was cut off, some nodes have the second password, and the settings go back to the first.
    database.install()
    database.set_password("add", FIRST)
    assert admits(FIRST)
    assert admits(SECOND)
    database.set_password("only", FIRST)
    assert admits(FIRST)
    assert not admits(SECOND)


def test_both_passwords_survive_a_restart_of_valkey(database: Database) -> None:
    database.set_password("add", SECOND)
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    assert admits(SECOND)


def test_no_password_is_in_a_file_of_the_machine_in_clear(database: Database) -> None:
    database.set_password("add", SECOND)
    assert database.shell(f"grep -rlE '{FIRST}|{SECOND}' /etc /var /run || true") == ""
    assert "640 root:valkey" in database.shell("stat --format '%a %U:%G' /etc/valkey/users.acl")


def test_password_set_by_hand_is_removed_by_the_next_run(database: Database) -> None:
    database.set_password("only", FIRST)
    database.shell("sed -i '/^user default/s/$/ >by-hand-by-hand-by-hand/' /etc/valkey/users.acl")
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits("by-hand-by-hand-by-hand"))
    database.set_password("only", FIRST)
    assert not admits("by-hand-by-hand-by-hand")


@pytest.mark.parametrize("lost", ["/etc/valkey/users.acl", "/etc/valkey/operator-password"])
def test_lost_login_of_the_scripts_is_made_again(database: Database, lost: str) -> None:
    database.shell(f"rm {lost}")
    database.install()
    database.set_password("only", FIRST)
    assert admits(FIRST)


def test_registry_keeps_its_id_until_its_data_is_lost(database: Database) -> None:
    first, process = database.install(), database.process
    assert len(first) == 32
    assert (database.install(), database.process) == (first, process)
    database.shell("systemctl restart valkey-server")
    assert database.install() == first
    with closing(Client(FIRST)) as node:
        node.ask("FLUSHALL")
    emptied = database.install()
    assert emptied != first
    database.shell("systemctl stop valkey-server && rm -r /var/lib/valkey/* && systemctl start valkey-server")
    assert database.install() not in (first, emptied)


def test_backup_brings_the_data_back_under_a_new_id(database: Database) -> None:
    before = database.install()
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
        database.shell(f"{INSTALLED}/back-up-registry.sh >/root/backup")
        assert node.ask("PING") == "+PONG"  # it serves meanwhile
        node.ask("FLUSHALL")
    assert "keys" in database.shell(f"{INSTALLED}/restore-registry.sh </root/backup")
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"
        assert node.ask("STRLEN ant-media-cluster:registry") == ":32"
    assert database.install() != before
    # The restored data is in the append-only file: it survives the next start too.
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"


def test_incomplete_backup_is_refused_before_anything_stops(database: Database) -> None:
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
    database.shell(f"{INSTALLED}/back-up-registry.sh >/root/backup; head --bytes 60 /root/backup >/root/cut")
    process = database.process
    for file in ("/root/cut", "/etc/passwd", "/dev/null"):
        assert "Nothing was changed" in database.fail(f"{INSTALLED}/restore-registry.sh <{file}")
    assert database.process == process


def test_restore_that_was_killed_halfway_leaves_the_old_data_to_the_next_run(database: Database) -> None:
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
    database.shell(
        "systemctl stop valkey-server && mv /var/lib/valkey/appendonlydir /var/lib/valkey/before-restore"
    )
    database.fail(f"{INSTALLED}/restore-registry.sh </dev/null")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"
