"""The registry in MongoDB."""

import functools
from collections.abc import Callable
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from .settings import MongoDatabase, UnusableDatabaseError

P = ParamSpec("P")
T = TypeVar("T")


def _raise_os_errors(
    method: "Callable[P, CoroutineType[Any, Any, T]]",
) -> "Callable[P, CoroutineType[Any, Any, T]]":
    """Turns the errors of the driver into those of the operating system, which the registry handles."""

    @functools.wraps(method)
    async def call(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return await method(*arguments, **options)
        except OperationFailure as error:
            raise PermissionError(str(error)) from error
        except PyMongoError as error:
            raise ConnectionError(str(error)) from error

    return call


class MongoStore:
    """A store in MongoDB: a document for each key."""

    def __init__(self, database: MongoDatabase) -> None:
        # The driver takes + in a password for a space. The original's, Java's, does not.
        credentials, at, rest = database.url.rpartition("@")
        try:
            client: AsyncMongoClient[dict[str, str]] = AsyncMongoClient(
                credentials.replace("+", "%2B").replace("mongodb%2Bsrv", "mongodb+srv") + at + rest,
                # The original waits for 30 s.
                serverSelectionTimeoutMS=6000,
            )
        except (InvalidURI, ConfigurationError) as error:
            raise UnusableDatabaseError(f"the connection string is invalid: {error}") from error
        self._documents: AsyncCollection[dict[str, str]] = client["clusterdb"]["registry"]

    @_raise_os_errors
    async def hget(self, name: str, key: str) -> str | None:
        document = await self._documents.find_one({"map": name, "key": key})
        return document["value"] if document else None

    @_raise_os_errors
    async def hgetall(self, name: str) -> dict[str, str]:
        return {found["key"]: found["value"] async for found in self._documents.find({"map": name})}

    @_raise_os_errors
    async def hset(self, name: str, key: str, value: str) -> None:
        await self._documents.update_one({"map": name, "key": key}, {"$set": {"value": value}}, upsert=True)

    @_raise_os_errors
    async def hsetnx(self, name: str, key: str, value: str) -> None:
        # The id makes two nodes that start at the same time agree.
        new = {"_id": f"{name}/{key}", "value": value}
        await self._documents.update_one({"map": name, "key": key}, {"$setOnInsert": new}, upsert=True)

    @_raise_os_errors
    async def hdel(self, name: str, key: str) -> None:
        await self._documents.delete_one({"map": name, "key": key})
