"""Tests the registry's standby with real Valkeys and a node's HAProxy: what a node writes and reads while the database is away."""

import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pytest

from cluster.machine_scripts import INSTALLED_SCRIPTS, ScriptFolder
from sandbox.cloud.images import build
from tests.sandbox.images.machines import Machines, enter_network, wait_until
from tests.sandbox.scripts.registry_machines import (
    BALANCER,
    DATABASE,
    NODE,
    REPLICATION_PASSWORD,
    Client,
    Machine,
    ask,
)

PASSWORD = "password-of-the-nodes"

# A server on the node: writes numbered keys through its proxy, each until it is acknowledged, and reads an old one in between, over
# several connections at once. Prints each reply that is no success and, when its standard input closes, the number of keys.
WRITER = f"""
import itertools, socket, sys, threading
numbers = itertools.count()
stopped = threading.Event()
class Connection(threading.Thread):
    stream = None
    def run(self):
        while True:
            for command, expected in ((f"SET key-{{next(numbers)}} 1", "+OK\\r\\n"), ("STRLEN before", ":3\\r\\n")):
                reply = self.ask(command)
                if reply != expected: print(command, reply, flush=True)
            if stopped.wait(0.05): break
    def ask(self, command):
        while True:
            try:
                if self.stream is None:
                    self.stream = socket.create_connection(("127.0.0.1", 6379), timeout=3).makefile("rw", newline="\\r\\n")
                    self.send("AUTH {PASSWORD}")
                    if (reply := self.stream.readline()) != "+OK\\r\\n":
                        if reply: print("AUTH", reply, flush=True)
                        raise OSError
                self.send(command)
                reply = self.stream.readline()
                if not reply: raise OSError
                return reply
            except OSError:
                self.stream = None
    def send(self, command):
        self.stream.write(command + "\\r\\n"); self.stream.flush()
connections = [Connection() for _ in range(4)]
for connection in connections: connection.start()
sys.stdin.read()
stopped.set()
for connection in connections: connection.join()
print("keys", next(numbers))
"""


@dataclass
class Registry:
    machines: Machines
    database: Machine
    balancer: Machine
    node: Machine

    def role(self, machine: Machine) -> str:
        """Returns `master` or `slave`."""
        return machine.shell("printf 'AUTH probe -\\nROLE\\n' | valkey-cli | sed -n 2p").strip()

    def used(self) -> str:
        """Returns the address of the Valkey that the node uses."""
        # The reply's last line, the sixth after that of AUTH. Not a pipe, whose end would not be the reply's.
        command = (
            f"exec 3<>/dev/tcp/127.0.0.1/6379; printf 'AUTH {PASSWORD}\\r\\nCONFIG GET bind\\r\\n' >&3;"
            " timeout 5 sed -n '6{s/\\r//;p;q}' <&3"
        )
        return self.node.shell(f"{{ {command}; }} 2>/dev/null || true").strip().removeprefix("127.0.0.1 ")

    def standby_leads(self) -> bool:
        return self.role(self.balancer) == "master" and self.used() == BALANCER

    def database_leads(self) -> bool:
        """True if everything is as before a failure."""
        roles = self.role(self.database), self.role(self.balancer)
        listening = BALANCER in self.balancer.shell("ss -Hltn sport = 6379")
        return (
            roles == ("master", "slave")
            and self.used() == self.database.address
            and self.is_in_sync()
            and listening
        )

    def is_in_sync(self) -> bool:
        return "master_link_status:up" in self.balancer.shell(
            f"cd {INSTALLED_SCRIPTS} && source ./prelude.sh && source ./valkey.sh && ask_valkey <<<'INFO replication'"
        )

    def lead_to_database(self) -> None:
        """Runs the scripts that name the database's address on the other machines."""
        self.node.shell(f"{INSTALLED_SCRIPTS}/set-up-registry-proxy.sh {self.database.address} {BALANCER}")
        self.balancer.install_valkey("standby", self.database.address)

    @contextmanager
    def writing(self) -> Generator[Callable[[], int]]:
        """Writes on the node. The value ends that and returns the number of keys."""
        command = [*self.machines.enter_machine(NODE), "python3", "-uc", WRITER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def stop() -> int:
                output, _ = process.communicate(timeout=250)
                *refused, (_, keys) = (line.split() for line in output.splitlines())
                assert refused == []
                return int(keys)

            try:
                yield stop
            finally:
                process.kill()

    def count_keys(self, keys: int) -> int:
        """Returns how many of the writer's keys the database has."""
        return int(
            ask(PASSWORD, self.database.address, "EXISTS " + " ".join(f"key-{n}" for n in range(keys)))[1:]
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    haproxy = build("haproxy")
    machines = Machines(tmp_path_factory.mktemp("machines"), build("valkey"))
    try:
        with enter_network(machines):
            database = Machine(machines, DATABASE, ScriptFolder.REGISTRY)
            balancer = Machine(machines, BALANCER, ScriptFolder.BALANCER)
            node = Machine(machines, NODE, ScriptFolder.NODE, haproxy)
            database.install_database()
            registry = Registry(machines, database, balancer, node)
            registry.lead_to_database()
            for machine in (database, balancer):
                machine.set_password("only", PASSWORD)
            yield registry
    finally:
        machines.stop()


@pytest.fixture
def registry(installed: Registry) -> Registry:
    wait_until("the database leads", installed.database_leads)
    ask(PASSWORD, DATABASE, "SET before yes")
    wait_until("the standby has the key", lambda: ask(PASSWORD, BALANCER, "STRLEN before") == ":3")
    return installed


def stop(registry: Registry) -> None:
    registry.database.shell("systemctl stop valkey-server")


def start(registry: Registry) -> None:
    registry.database.shell("systemctl start valkey-server")


def freeze(registry: Registry) -> None:
    registry.database.signal("STOP")


def thaw(registry: Registry) -> None:
    registry.database.signal("CONT")


def cut_off(registry: Registry) -> None:
    registry.machines.ip("link set vm5 down")


def connect(registry: Registry) -> None:
    registry.machines.ip("link set vm5 up")


@pytest.mark.parametrize(("fail", "repair"), [(stop, start), (freeze, thaw), (cut_off, connect)])
def test_node_writes_on_while_the_database_is_away_and_the_database_has_it_all_afterwards(
    registry: Registry, fail: Callable[[Registry], None], repair: Callable[[Registry], None]
) -> None:
    with registry.writing() as stop_writing:
        fail(registry)
        wait_until("the standby leads", registry.standby_leads)
        repair(registry)
        wait_until("the database leads", registry.database_leads)
        keys = stop_writing()
    # Replication is asynchronous: a database that fails may take the last write of each connection with it.
    assert registry.count_keys(keys) >= keys - 4 * (fail is not stop)


def test_hand_over_refuses_no_write_of_a_node_that_checks_late(registry: Registry) -> None:
    def count_all_keys() -> int:
        return int(ask(PASSWORD, DATABASE, "DBSIZE")[1:])

    rarely = "sed -i 's/check inter 1s/check inter 1h downinter 1s/' /etc/haproxy/haproxy.cfg"
    registry.node.shell(f"{rarely} && systemctl restart haproxy")
    with registry.writing() as stop_writing:
        stop(registry)
        wait_until("the standby leads", registry.standby_leads)
        start(registry)
        wait_until("the standby follows", lambda: registry.role(registry.balancer) == "slave")
        before = count_all_keys()
        wait_until("the node writes to the database", lambda: count_all_keys() > before + 4)
        keys = stop_writing()
    registry.lead_to_database()
    assert registry.count_keys(keys) == keys


def test_new_database_gets_data_and_passwords_of_the_standby(registry: Registry) -> None:
    before = registry.database.install_database()
    with registry.writing() as stop_writing:
        stop(registry)
        wait_until("the standby leads", registry.standby_leads)
        # As on a new machine. It admits the nodes before set-registry-password.sh has run.
        registry.database.shell("rm -r /var/lib/valkey/* /etc/valkey/{users.acl,*-password,cluster.conf}")
        assert registry.database.install_database() == before
        wait_until("the database leads", registry.database_leads)
        keys = stop_writing()
    assert registry.count_keys(keys) == keys
    assert ask(PASSWORD, DATABASE, "STRLEN before") == ":3"


def test_new_database_at_another_address_gets_data_and_passwords_too(registry: Registry) -> None:
    """As with another `database.subnet`."""
    before = registry.database.install_database()
    moved = replace(registry, database=Machine(registry.machines, "10.0.0.6", ScriptFolder.REGISTRY))
    with registry.writing() as stop_writing:
        stop(registry)
        wait_until("the standby leads", registry.standby_leads)
        assert moved.database.install_database() == before
        moved.lead_to_database()
        wait_until("the database leads", moved.database_leads)
        keys = stop_writing()
    assert moved.count_keys(keys) == keys
    start(registry)
    registry.lead_to_database()


def test_restored_registry_replaces_that_of_the_standby(registry: Registry) -> None:
    before = registry.database.install_database()
    registry.database.shell(f"{INSTALLED_SCRIPTS}/back-up-registry.sh >/root/backup")
    ask(PASSWORD, DATABASE, "SET later yes")
    registry.balancer.shell("systemctl stop keep-registry")
    registry.database.shell("systemctl stop valkey-server")
    registry.balancer.shell("systemctl start keep-registry")
    wait_until("the standby leads", registry.standby_leads)
    registry.database.shell(
        f"systemctl start valkey-server; {INSTALLED_SCRIPTS}/restore-registry.sh </root/backup"
    )
    wait_until("the database leads", registry.database_leads)
    assert registry.database.install_database() != before
    for address in (DATABASE, BALANCER):
        assert ask(PASSWORD, address, "STRLEN before") == ":3"
        assert ask(PASSWORD, address, "STRLEN later") == ":0"


def test_database_serves_while_the_load_balancer_is_away(registry: Registry) -> None:
    with registry.writing() as stop_writing:
        registry.machines.ip("link set vm4 down")
        wait_until("the node uses the database", lambda: registry.used() == DATABASE)
        keys = stop_writing()
    registry.machines.ip("link set vm4 up")
    wait_until("the database leads", registry.database_leads)
    assert registry.count_keys(keys) == keys


def test_keeper_that_is_killed_in_a_hand_over_leaves_one_primary(registry: Registry) -> None:
    """The load balancer reboots when the database is its standby's replica: then both follow each other."""
    stop(registry)
    wait_until("the standby leads", registry.standby_leads)
    registry.balancer.shell("systemctl stop keep-registry")
    start(registry)
    password = f"AUTH replication {REPLICATION_PASSWORD}"
    registry.balancer.shell(f"printf '{password}\\nREPLICAOF {BALANCER} 6379\\n' | valkey-cli -h {DATABASE}")
    registry.balancer.shell("systemctl restart valkey-server && systemctl start keep-registry")
    wait_until("the database leads", registry.database_leads)
    assert ask(PASSWORD, DATABASE, "STRLEN before") == ":3"


def test_nobody_but_the_machines_may_do_more_than_read_the_role(registry: Registry) -> None:
    for address in (DATABASE, BALANCER):
        with closing(Client("-", address, "probe")) as probe:
            assert probe.login == "+OK"
            assert probe.ask("ROLE").startswith("*")
        with closing(Client("-", address, "probe")) as probe:
            assert "NOPERM" in probe.ask("GET before")
        with closing(Client(REPLICATION_PASSWORD, address, "replication")) as replication:
            assert "NOPERM" in replication.ask("GET before")
            assert "NOPERM" in replication.ask("CONFIG GET requirepass")
