"""Tests the scripts of the database machine with Debian's Valkey on a booted machine."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from cluster.machine_scripts import INSTALLED_SCRIPTS, ScriptFolder
from sandbox.cloud.images import build
from tests.sandbox.images.machines import Machines, enter_network, wait_until
from tests.sandbox.scripts.registry_machines import DATABASE, REPLICATION_PASSWORD, Client, Machine

FIRST, SECOND = "first-password-of-the-nodes", "second-password-of-the-nodes"


def admits(password: str) -> bool:
    with closing(Client(password)) as client:
        return client.login == "+OK"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machines = Machines(tmp_path_factory.mktemp("machines"), build("valkey"))
    try:
        with enter_network(machines):
            yield Machine(machines, DATABASE, ScriptFolder.REGISTRY)
    finally:
        machines.stop()


@pytest.fixture
def database(machine: Machine) -> Machine:
    """The database of a cluster that uses the first password."""
    machine.install_database()
    machine.set_password("only", FIRST)
    return machine


def test_password_is_rotated_without_a_restart_and_both_are_valid_meanwhile(database: Machine) -> None:
    process = database.valkey_process
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
    assert database.valkey_process == process


def test_password_that_is_taken_back_halfway_is_the_only_one_in_the_end(database: Machine) -> None:
    database.set_password("add", SECOND)
    # The update was cut off, some nodes have the second password, and the settings go back to the first.
    database.install_database()
    database.set_password("add", FIRST)
    assert admits(FIRST)
    assert admits(SECOND)
    database.set_password("only", FIRST)
    assert admits(FIRST)
    assert not admits(SECOND)


def test_both_passwords_survive_a_restart_of_valkey(database: Machine) -> None:
    database.set_password("add", SECOND)
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    assert admits(SECOND)


def test_no_password_is_in_a_file_of_the_machine_in_clear(database: Machine) -> None:
    database.set_password("add", SECOND)
    assert database.shell(f"grep -rlE '{FIRST}|{SECOND}' /etc /var /run || true") == ""
    keeps_it = database.shell(f"grep -rlF {REPLICATION_PASSWORD} /etc /var /run || true").split()
    assert sorted(keeps_it) == ["/etc/valkey/cluster.conf", "/etc/valkey/replication-password"]
    assert "640 root:valkey" in database.shell("stat --format '%a %U:%G' /etc/valkey/users.acl")


def test_password_set_by_hand_is_removed_by_the_next_run(database: Machine) -> None:
    database.set_password("only", FIRST)
    database.shell("sed -i '/^user default/s/$/ >by-hand-by-hand-by-hand/' /etc/valkey/users.acl")
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits("by-hand-by-hand-by-hand"))
    database.set_password("only", FIRST)
    assert not admits("by-hand-by-hand-by-hand")


@pytest.mark.parametrize("lost", ["/etc/valkey/users.acl", "/etc/valkey/operator-password"])
def test_lost_login_of_the_scripts_is_made_again(database: Machine, lost: str) -> None:
    database.shell(f"rm {lost}")
    database.install_database()
    database.set_password("only", FIRST)
    assert admits(FIRST)


def test_registry_keeps_its_id_until_its_data_is_lost(database: Machine) -> None:
    first, process = database.install_database(), database.valkey_process
    assert len(first) == 32
    assert (database.install_database(), database.valkey_process) == (first, process)
    database.shell("systemctl restart valkey-server")
    assert database.install_database() == first
    with closing(Client(FIRST)) as node:
        node.ask("FLUSHALL")
    emptied = database.install_database()
    assert emptied != first
    database.shell("systemctl stop valkey-server && rm -r /var/lib/valkey/* && systemctl start valkey-server")
    assert database.install_database() not in (first, emptied)


def test_backup_brings_the_data_back_under_a_new_id(database: Machine) -> None:
    before = database.install_database()
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
        database.shell(f"{INSTALLED_SCRIPTS}/back-up-registry.sh >/root/backup")
        assert node.ask("PING") == "+PONG"  # it serves meanwhile
        node.ask("FLUSHALL")
    assert "keys" in database.shell(f"{INSTALLED_SCRIPTS}/restore-registry.sh </root/backup")
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"
        assert node.ask("STRLEN ant-media-cluster:registry") == ":32"
    assert database.install_database() != before
    # The restored data is in the append-only file: it survives the next start too.
    database.shell("systemctl restart valkey-server")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"


def test_incomplete_backup_is_refused_before_anything_stops(database: Machine) -> None:
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
    database.shell(
        f"{INSTALLED_SCRIPTS}/back-up-registry.sh >/root/backup; head --bytes 60 /root/backup >/root/cut"
    )
    process = database.valkey_process
    for file in ("/root/cut", "/etc/passwd", "/dev/null"):
        assert "Nothing was changed" in database.fail(f"{INSTALLED_SCRIPTS}/restore-registry.sh <{file}")
    assert database.valkey_process == process


def test_restore_that_was_killed_halfway_leaves_the_old_data_to_the_next_run(database: Machine) -> None:
    with closing(Client(FIRST)) as node:
        node.ask("SET user alice")
    database.shell(
        "systemctl stop valkey-server && mv /var/lib/valkey/appendonlydir /var/lib/valkey/before-restore"
    )
    database.fail(f"{INSTALLED_SCRIPTS}/restore-registry.sh </dev/null")
    wait_until("Valkey has loaded its data", lambda: admits(FIRST))
    with closing(Client(FIRST)) as node:
        assert node.ask("STRLEN user") == ":5"
