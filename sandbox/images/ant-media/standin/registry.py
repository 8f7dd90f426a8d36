"""Users, broadcasts and nodes: in Redis for a cluster, in a file of its own for a single server."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from .settings import Database, UnusableDatabaseError

HEARTBEAT = 5.0
DEAD_AFTER = 4 * HEARTBEAT
CONNECT_PATIENCE = 6.0
"""How long a starting server tries to reach its database before it stops (the original: 10-30)."""


class Store(Protocol):
    """The few commands of Redis that are used."""

    async def hget(self, name: str, key: str) -> str | None: ...
    async def hgetall(self, name: str) -> dict[str, str]: ...
    async def hset(self, name: str, key: str, value: str) -> object: ...
    async def hsetnx(self, name: str, key: str, value: str) -> object: ...
    async def hdel(self, name: str, key: str) -> object: ...


class FileStore:
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


async def connect(database: Database) -> Store:
    client = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        database.url,
        username=database.user,
        password=database.password,
        decode_responses=True,
        socket_connect_timeout=3,
        socket_timeout=3,
        retry=Retry(ConstantBackoff(0.2), 1),
    )
    store = cast(Store, client)
    deadline = time.monotonic() + CONNECT_PATIENCE
    while True:
        try:
            await store.hget("antmedia:cluster", "key")
            return store
        except (AuthenticationError, AuthorizationError) as error:
            raise UnusableDatabaseError(f"the database refuses the password: {error}") from error
        except RedisError as error:
            if time.monotonic() > deadline:
                raise UnusableDatabaseError(f"the database cannot be reached: {error}") from error
        await asyncio.sleep(0.5)


@dataclass(frozen=True)
class Broadcast:
    streamId: str  # noqa: N815 - the original's names, the misspelt one too: they are what the REST API shows.
    name: str
    status: str
    originAdress: str | None  # noqa: N815
    zombi: bool
    """Made by publishing and not by the REST API, so it goes when the publisher does."""
    type: str = "liveStream"

    def json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Node:
    id: str
    ip: str
    lastUpdateTime: int  # noqa: N815 - milliseconds

    def json(self) -> dict[str, object]:
        alive = time.time() - self.lastUpdateTime / 1000 <= DEAD_AFTER
        return {**asdict(self), "status": "alive" if alive else "dead"}


class Registry:
    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._address = address

    async def communication_key(self, proposal: str) -> str:
        """The key that nodes prove themselves to each other with: the first node's proposal holds."""
        await self._store.hsetnx("antmedia:cluster", "key", proposal)
        return cast(str, await self._store.hget("antmedia:cluster", "key"))

    async def users(self) -> dict[str, str]:
        return await self._store.hgetall("antmedia:users")

    async def add_user(self, email: str, password_hash: str) -> None:
        await self._store.hset("antmedia:users", email, password_hash)

    async def heartbeat(self) -> None:
        node = Node(self._address, self._address, int(time.time() * 1000))
        await self._store.hset("antmedia:nodes", node.id, json.dumps(asdict(node)))

    async def nodes(self) -> list[Node]:
        nodes = await self._store.hgetall("antmedia:nodes")
        return [Node(**json.loads(value)) for _, value in sorted(nodes.items())]

    async def remove_node(self, id_: str) -> None:
        await self._store.hdel("antmedia:nodes", id_)

    async def broadcast(self, app: str, stream: str) -> Broadcast | None:
        text = await self._store.hget(f"antmedia:broadcasts:{app}", stream)
        return Broadcast(**json.loads(text)) if text else None

    async def broadcasts(self, app: str) -> list[Broadcast]:
        values = await self._store.hgetall(f"antmedia:broadcasts:{app}")
        return [Broadcast(**json.loads(text)) for _, text in sorted(values.items())]

    async def save(self, app: str, broadcast: Broadcast) -> None:
        await self._store.hset(f"antmedia:broadcasts:{app}", broadcast.streamId, json.dumps(broadcast.json()))

    async def delete(self, app: str, stream: str) -> None:
        await self._store.hdel(f"antmedia:broadcasts:{app}", stream)

    async def publishing_started(self, app: str, stream: str) -> None:
        known = await self.broadcast(app, stream)
        await self.save(
            app,
            Broadcast(
                streamId=stream,
                name=known.name if known else stream,
                status="broadcasting",
                originAdress=self._address,
                zombi=known is None or known.zombi,
            ),
        )

    async def publishing_ended(self, app: str, stream: str) -> None:
        known = await self.broadcast(app, stream)
        if known is None or known.originAdress != self._address:
            return
        if known.zombi:
            await self.delete(app, stream)
        else:
            await self.save(app, Broadcast(stream, known.name, "finished", None, zombi=False))

    async def leave(self, apps: list[str]) -> None:
        """A normal stop takes the node and its streams out at once; a crash leaves them until stale."""
        for app in apps:
            for broadcast in await self.broadcasts(app):
                await self.publishing_ended(app, broadcast.streamId)
        await self.remove_node(self._address)
