#!/usr/bin/env python3
"""Keeps the cluster registry available while the database is away. A systemd service runs it on the load balancer.

Valkey on this machine is the registry's standby: a replica of the database. While the database does not answer, this script
makes it the primary. The proxies of the nodes ask the standby for its role, and use it if it is the primary, else the
database. So one machine decides, and all nodes use the same Valkey. When the database is back, it first gets what was written
meanwhile, and then becomes the primary again without a lost write.

usage: keep-registry.py DATABASE ADDRESS      the private addresses of the database and of this machine
"""

import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

SETTINGS = Path("/etc/valkey")
REGISTRY_KEY = "ant-media-cluster:registry"
PORT = 6379
INTERVAL = 0.3
ANSWER_TIMEOUT = 1.0
AWAY_AFTER = 1.5
"""Seconds without an answer of the database."""
BACK_AFTER = 5.0
"""Seconds of answers: a database that stops again at once does not interrupt the nodes twice."""
CLOSED = 5.0
"""Seconds for which a standby that has become a replica takes no connection of nodes: until their proxies know its role."""
LIFETIME = 3600
"""Seconds. systemd starts the script again, in the version that is then installed."""


class ReplyError(Exception):
    """An error that Valkey replied."""


@dataclass(frozen=True)
class State:
    """What a Valkey tells of itself."""

    leads: bool
    """True for a primary."""
    registry: str = ""
    """The id of its data. Empty if it holds no registry."""
    has_replica: bool = False
    """True for a primary with a replica that has all data."""


class Step(StrEnum):
    """What to do next, as a line of the log."""

    LEAD = "The database does not answer: the standby leads"
    FOLLOW = "The database is back with another registry: it leads, and the standby copies it"
    COPY = "The database is back: it copies the standby"
    HAND_OVER = "The database has what was written meanwhile: it leads"
    RELEASE = "A hand-over was interrupted: the database leads"


def choose_step(standby: State, database: State | None, away: float, back: float) -> Step | None:
    """Returns the next step, or None.

    `database` is None if it does not answer. `away` is the time since it last did, and `back` the time for which it does.
    """
    if database is None:
        # A standby that never had the whole registry has no id.
        return Step.LEAD if away >= AWAY_AFTER and not standby.leads and standby.registry else None
    if not standby.leads:
        # After a reboot of this machine in the middle of a hand-over, both are replicas.
        return None if database.leads else Step.RELEASE
    if back < BACK_AFTER:
        return None
    if database.registry not in ("", standby.registry):
        return Step.FOLLOW
    if database.leads:
        return Step.COPY
    return Step.HAND_OVER if standby.has_replica else None


class Valkey:
    """A connection to a Valkey, opened when it is needed."""

    def __init__(self, address: str, user: str) -> None:
        self.address = address
        self._login = ("AUTH", user, (SETTINGS / f"{user}-password").read_text().strip())
        self._socket: socket.socket | None = None

    def ask(self, *commands: tuple[str, ...]) -> list[Any]:
        """Returns the replies. Raises OSError if there is none, and ReplyError for an error."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self.address, PORT), timeout=ANSWER_TIMEOUT)
                _exchange(self._socket, [self._login])
            return _exchange(self._socket, commands)
        except (OSError, ReplyError):
            if self._socket:
                self._socket.close()
            self._socket = None
            raise

    def read_state(self) -> State:
        role, registry = self.ask(("ROLE",), ("GET", REGISTRY_KEY))
        leads = role[0] == "master"
        return State(leads, registry or "", has_replica=leads and bool(role[2]))

    def read_offset(self) -> int:
        """Returns the position in the stream of writes up to which it has them."""
        (role,) = self.ask(("ROLE",))
        return int(role[1] if role[0] == "master" else role[4])

    def replicate(self, primary: str) -> None:
        self.ask(("REPLICAOF", primary, str(PORT)))

    def lead(self) -> None:
        self.ask(("REPLICAOF", "NO", "ONE"))


def _exchange(connection: socket.socket, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    connection.sendall(b"".join(_encode(command) for command in commands))
    with connection.makefile("rb") as replies:
        return [_read_reply(replies) for _ in commands]


def _encode(command: tuple[str, ...]) -> bytes:
    parts = [part.encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _read_reply(replies: IO[bytes]) -> Any:
    line = replies.readline().decode().strip()
    kind, value = line[:1], line[1:]
    match kind:
        case "":
            raise ConnectionResetError("Valkey closed the connection")
        case "-":
            raise ReplyError(value)
        case "$":
            return None if value == "-1" else replies.read(int(value) + 2)[:-2].decode()
        case "*":
            return [_read_reply(replies) for _ in range(int(value))]
        case _:
            return value


class Registry:
    """The database and its standby on this machine."""

    def __init__(self, database: str, address: str) -> None:
        self._address = address
        # A former run may have ended while the standby was closed.
        self._opens: float | None = 0.0
        self._standby = Valkey("127.0.0.1", "operator")
        self._database = Valkey(database, "replication")
        self._last_answer = self._first_answer = time.monotonic()

    def keep(self) -> None:
        """Takes the next step, if there is one."""
        standby = self._standby.read_state()
        database = self._ask_database()
        now = time.monotonic()
        if self._opens is not None and now >= self._opens:
            self._open()
        step = choose_step(standby, database, now - self._last_answer, now - self._first_answer)
        if step is None:
            return
        print(step, flush=True)
        match step:
            case Step.LEAD:
                self._standby.lead()
                self._open()
            case Step.FOLLOW:
                self._demote()
            case Step.COPY:
                self._database.replicate(self._address)
            case Step.HAND_OVER:
                self._hand_over()
            case Step.RELEASE:
                self._database.lead()

    def _hand_over(self) -> None:
        # No write is lost or refused: they wait until the database has all of them and leads.
        self._standby.ask(("CLIENT", "PAUSE", "10000", "WRITE"))
        try:
            end = time.monotonic() + 2
            while self._database.read_offset() < self._standby.read_offset():
                if time.monotonic() > end:
                    return
                time.sleep(0.01)
            self._database.lead()
            self._demote()
        finally:
            self._standby.ask(("CLIENT", "UNPAUSE"))

    def _demote(self) -> None:
        """Makes the standby a replica, and ends the connections of the nodes, which would get errors for their writes."""
        # Before the commands: Valkey may carry them out, and its answer may be lost.
        self._opens = time.monotonic() + CLOSED
        self._standby.ask(
            ("CONFIG", "SET", "bind", "127.0.0.1"),
            ("CLIENT", "KILL", "TYPE", "normal"),
            ("REPLICAOF", self._database.address, str(PORT)),
        )

    def _open(self) -> None:
        self._standby.ask(("CONFIG", "SET", "bind", f"127.0.0.1 {self._address}"))
        self._opens = None

    def _ask_database(self) -> State | None:
        """Returns None if the database does not answer, or loads its data."""
        try:
            state = self._database.read_state()
        except ReplyError as error:
            if not str(error).startswith("LOADING"):
                # It may well serve the nodes.
                self._last_answer = time.monotonic()
                raise
            state = None
        except OSError:
            state = None
        if state is None:
            self._first_answer = time.monotonic()
        else:
            self._last_answer = time.monotonic()
        return state


def main() -> None:
    registry, problem = Registry(*sys.argv[1:]), ""
    end = time.monotonic() + LIFETIME
    while time.monotonic() < end:
        before, problem = problem, ""
        try:
            registry.keep()
        except (OSError, ReplyError) as error:
            problem = str(error)
            if problem != before:
                print(problem, flush=True)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
