"""The registry of users, broadcasts and nodes: in Redis or MongoDB for a cluster, in a file for a single server."""

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .settings import MongoDatabase, RedisDatabase, UnusableDatabaseError

log = logging.getLogger("stand-in")

DATABASE_ERRORS = (RedisError, OSError)

HEARTBEAT = 5.0
DEAD_AFTER = 4 * HEARTBEAT


class Store(Protocol):
    """The commands of Redis that the registry uses."""

    async def hget(self, name: str, key: str) -> str | None: ...
    async def hgetall(self, name: str) -> dict[str, str]: ...
    async def hset(self, name: str, key: str, value: str) -> object: ...
    async def hsetnx(self, name: str, key: str, value: str) -> object: ...
    async def hdel(self, name: str, key: str) -> object: ...


class FileStore:
    """A store in a JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._data: dict[str, dict[str, str]] = json.loads(file.read_text()) if file.exists() else {}

    async def hget(self, name: str, key: str) -> str | None:
        return self._data.get(name, {}).get(key)

    async def hgetall(self, name: str) -> dict[str, str]:
        return dict(self._data.get(name, {}))

    async def hset(self, name: str, key: str, value: str) -> None:
        self._data.setdefault(name, {})[key] = value
        self._file.write_text(json.dumps(self._data))

    async def hsetnx(self, name: str, key: str, value: str) -> None:
        if key not in self._data.get(name, {}):
            await self.hset(name, key, value)

    async def hdel(self, name: str, key: str) -> None:
        self._data.get(name, {}).pop(key, None)
        self._file.write_text(json.dumps(self._data))


async def connect_database(database: RedisDatabase | MongoDatabase) -> Store:
    """Connects to the database. Raises UnusableDatabaseError if it rejects the password or cannot be reached."""
    store: Store
    if isinstance(database, MongoDatabase):
        from .mongo import MongoStore  # The driver loads slowly.

        store = MongoStore(database)
    else:
        store = RedisStore(database)
    try:
        await store.hget("antmedia:nodes", "")
    except (AuthenticationError, AuthorizationError, PermissionError) as error:
        raise UnusableDatabaseError(f"the database rejects the password: {error}") from error
    except DATABASE_ERRORS as error:
        raise UnusableDatabaseError(f"the database cannot be reached: {error}") from error
    return store


class RedisStore:
    """A store in Redis. A command is sent again after the pauses of the original's client, measured with Redisson 3.24.3.

    A command whose connection is lost waits for its reply for 3 s in any case, and is then sent again after 1.5 s. (A command that
    finds no connection waits for 1.5 s only.) Three more attempts are Redisson's default.
    """

    def __init__(self, database: RedisDatabase) -> None:
        # With TLS it verifies the certificate and the host name, as the original's client does.
        self._client = Redis(
            host=database.host,
            port=database.port,
            ssl=database.tls,
            username=database.user,
            password=database.password,
            decode_responses=True,
            socket_connect_timeout=3,
            socket_timeout=3,
            retry=Retry(NoBackoff(), 0),
        )

    async def hget(self, name: str, key: str) -> str | None:
        return cast(str | None, await self._send("HGET", name, key))

    async def hgetall(self, name: str) -> dict[str, str]:
        return cast(dict[str, str], await self._send("HGETALL", name))

    async def hset(self, name: str, key: str, value: str) -> None:
        await self._send("HSET", name, key, value)

    async def hsetnx(self, name: str, key: str, value: str) -> None:
        await self._send("HSETNX", name, key, value)

    async def hdel(self, name: str, key: str) -> None:
        await self._send("HDEL", name, key)

    async def _send(self, *command: str) -> object:
        # The driver's own attempts do not cover the login on a new connection.
        for pause in (4.5, 1.5, 1.5):
            try:
                return await self._client.execute_command(*command)
            except (AuthenticationError, AuthorizationError):
                raise
            except (RedisConnectionError, RedisTimeoutError):
                await asyncio.sleep(pause)
        return await self._client.execute_command(*command)


@dataclass(frozen=True)
class Broadcast:
    streamId: str  # noqa: N815 - names of the original's REST API, including the misspelt one
    name: str
    status: str
    originAdress: str | None  # noqa: N815
    zombi: bool
    """True if publishing created it, not the REST API: it is deleted when publishing ends."""
    type: str = "liveStream"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Node:
    id: str
    ip: str
    lastUpdateTime: int  # noqa: N815 - milliseconds

    def to_json(self) -> dict[str, object]:
        alive = time.time() - self.lastUpdateTime / 1000 <= DEAD_AFTER
        return {**asdict(self), "status": "alive" if alive else "dead"}


class Registry:
    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._address = address
        # The original's DataStore.get holds a lock while it asks the database, so one lost answer delays all others.
        self._lookup = asyncio.Lock()
        self._queries = 0
        self._query_seconds = 0.0

    @property
    def average_query_milliseconds(self) -> int:
        return round(1000 * self._query_seconds / self._queries) if self._queries else 0

    async def list_applications(self) -> list[str]:
        return sorted(await self._store.hgetall("antmedia:settings"))

    async def find_app_settings(self, app: str) -> dict[str, object] | None:
        text = await self._store.hget("antmedia:settings", app)
        return cast(dict[str, object], json.loads(text)) if text else None

    async def save_app_settings(self, app: str, values: dict[str, object]) -> None:
        await self._store.hset("antmedia:settings", app, json.dumps(values))

    async def list_users(self) -> dict[str, str]:
        return await self._store.hgetall("antmedia:users")

    async def add_user(self, email: str, password_hash: str) -> None:
        await self._store.hset("antmedia:users", email, password_hash)

    async def save_heartbeat(self) -> None:
        node = Node(self._address, self._address, int(time.time() * 1000))
        await self._store.hset("antmedia:nodes", node.id, json.dumps(asdict(node)))

    async def list_nodes(self) -> list[Node]:
        nodes = await self._store.hgetall("antmedia:nodes")
        return [Node(**json.loads(value)) for _, value in sorted(nodes.items())]

    async def remove_node(self, id_: str) -> None:
        await self._store.hdel("antmedia:nodes", id_)

    async def find_broadcast(self, app: str, stream: str) -> Broadcast | None:
        async with self._lookup:
            started = time.monotonic()
            text = await self._store.hget(f"antmedia:broadcasts:{app}", stream)
            self._queries += 1
            self._query_seconds += time.monotonic() - started
        return Broadcast(**json.loads(text)) if text else None

    async def list_broadcasts(self, app: str) -> list[Broadcast]:
        values = await self._store.hgetall(f"antmedia:broadcasts:{app}")
        return [Broadcast(**json.loads(text)) for _, text in sorted(values.items())]

    async def save_broadcast(self, app: str, broadcast: Broadcast) -> None:
        await self._store.hset(
            f"antmedia:broadcasts:{app}", broadcast.streamId, json.dumps(broadcast.to_json())
        )

    async def delete_broadcast(self, app: str, stream: str) -> None:
        await self._store.hdel(f"antmedia:broadcasts:{app}", stream)

    async def start_broadcast(self, app: str, stream: str) -> None:
        known = await self.find_broadcast(app, stream)
        live = Broadcast(
            streamId=stream,
            name=known.name if known else stream,
            status="broadcasting",
            originAdress=self._address,
            zombi=known is None or known.zombi,
        )
        try:
            await self.save_broadcast(app, live)
        except DATABASE_ERRORS as error:
            # The original refuses a publisher if it cannot read the record (AcceptOnlyStreamsInDataStore), and only logs that it
            # cannot write it (AntMediaApplicationAdapter.startPublish): the stream plays on this node alone.
            log.error("could not register %s/%s: %s", app, stream, error)

    async def end_broadcast(self, app: str, stream: str) -> None:
        known = await self.find_broadcast(app, stream)
        if known is None or known.originAdress != self._address:
            return
        if known.zombi:
            await self.delete_broadcast(app, stream)
        else:
            await self.save_broadcast(app, Broadcast(stream, known.name, "finished", None, zombi=False))

    async def leave_cluster(self, apps: list[str]) -> None:
        """Removes the node and its streams.

        After a crash they stay. The node's status becomes `dead` when its last heartbeat is 20 seconds old.
        """
        for app in apps:
            for broadcast in await self.list_broadcasts(app):
                await self.end_broadcast(app, broadcast.streamId)
        await self.remove_node(self._address)
