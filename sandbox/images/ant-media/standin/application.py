"""A streaming application (LiveApp and the like): HLS, WebSocket, REST."""

import json
import re
import secrets
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, web

from . import jwt
from .media import MediaServer
from .registry import Broadcast, Registry
from .root import VERSION, error, reply, result
from .settings import WEBAPPS, Settings
from .tomcat import Client, Sessions

ORIGIN_PORT = 5000
CONTENT_TYPES = {
    ".m3u8": ("application/vnd.apple.mpegurl", "max-age=0"),
    ".ts": ("video/mp2t", "max-age=10"),
}


class Application:
    def __init__(
        self, name: str, settings: Settings, registry: Registry, media: MediaServer, cluster_key: str
    ) -> None:
        self.name = name
        self._settings = settings
        self._registry = registry
        self._media = media
        self._cluster_key = cluster_key
        self._sessions = Sessions(f"/{name}")

    async def answer(
        self, request: web.BaseRequest, path: str, client: Client, socket: web.WebSocketResponse
    ) -> web.StreamResponse:
        """`path` is below the application's own; `socket` is what to answer a WebSocket handshake with."""
        if path == "/":
            return web.Response(text=f"{self.name} of the Ant Media Server stand-in\n")
        if path == "/websocket":
            return await _converse(request, socket)
        if path.startswith("/streams/"):
            response = await self._stream_file(path.removeprefix("/streams/"))
            if self._sessions.find(request.headers.getall("Cookie", [])) is None:
                cookie = self._sessions.cookie(self._sessions.create(), secure=client.secure)
                response.headers.add("Set-Cookie", cookie)
            return response
        if path.startswith("/rest/"):
            return await self._rest(request, path, client)
        return error(HTTPStatus.NOT_FOUND)

    def own_file(self, name: str) -> web.StreamResponse | None:
        """A file of a stream that was published here."""
        file = WEBAPPS / self.name / "streams" / name
        if "/" in name or file.suffix not in CONTENT_TYPES or not file.is_file():
            return None
        content_type, cache = CONTENT_TYPES[file.suffix]
        return web.FileResponse(file, headers={"Content-Type": content_type, "Cache-Control": cache})

    async def _stream_file(self, name: str) -> web.StreamResponse:
        own = self.own_file(name)
        if own is not None:
            return own
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix in CONTENT_TYPES and self._settings.database:
            stream = stem if suffix == ".m3u8" else re.sub(r"-\d+$", "", stem)
            broadcast = await self._registry.broadcast(self.name, stream)
            if broadcast and broadcast.originAdress not in (None, self._settings.address):
                return await self._from_origin(f"http://{broadcast.originAdress}:{ORIGIN_PORT}", name)
        return error(HTTPStatus.NOT_FOUND)

    async def _from_origin(self, origin: str, name: str) -> web.StreamResponse:
        timeout = aiohttp.ClientTimeout(total=10, connect=2)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{origin}/{self.name}/streams/{name}") as answer,
            ):
                if answer.status != HTTPStatus.OK:
                    return error(HTTPStatus.NOT_FOUND)
                headers = {key: answer.headers[key] for key in ("Content-Type", "Cache-Control")}
                return web.Response(body=await answer.read(), headers=headers)
        except (aiohttp.ClientError, TimeoutError):
            return error(HTTPStatus.NOT_FOUND, "origin unreachable")

    async def _rest(self, request: web.BaseRequest, path: str, client: Client) -> web.StreamResponse:
        from_node = jwt.valid(self._cluster_key, request.headers.get("ClusterAuthorization", ""))
        allowed = self._settings.rest_networks[self.name]
        if not from_node and not any(client.address in network for network in allowed):
            return error(HTTPStatus.FORBIDDEN, "Not allowed IP")
        body = await request.read()
        match request.method, path.removeprefix("/rest/v2/").rstrip("/").split("/"):
            case "GET", ["version"]:
                return reply(VERSION)
            case "GET", ["broadcasts", "count" | "active-live-stream-count" as what]:
                broadcasts = await self._registry.broadcasts(self.name)
                live = [one for one in broadcasts if what == "count" or one.status == "broadcasting"]
                return reply({"number": len(live)})
            case "GET", ["broadcasts", "list", offset, size] if (offset + size).isdecimal():
                broadcasts = await self._registry.broadcasts(self.name)
                page = broadcasts[int(offset) : int(offset) + int(size)]
                return reply([broadcast.json() for broadcast in page])
            case "POST", ["broadcasts", "create"]:
                wanted = json.loads(body or b"{}")
                id_ = str(wanted.get("streamId") or secrets.token_hex(8))
                new = Broadcast(id_, str(wanted.get("name", "")), "created", None, zombi=False)
                await self._registry.save(self.name, new)
                return reply(new.json())
            case "GET", ["broadcasts", id_]:
                known = await self._registry.broadcast(self.name, id_)
                return reply(known.json()) if known else error(HTTPStatus.NOT_FOUND)
            case "POST" | "PUT" | "DELETE", ["broadcasts", id_, *rest]:
                known = await self._registry.broadcast(self.name, id_)
                if known is None:
                    return error(HTTPStatus.NOT_FOUND)
                if known.originAdress not in (None, self._settings.address) and not from_node:
                    return await self._from_owner(request, path, body, str(known.originAdress))
                return await self._change(request.method, known, rest, body)
            case _:
                return error(HTTPStatus.NOT_FOUND)

    async def _from_owner(
        self, request: web.BaseRequest, path: str, body: bytes, owner: str
    ) -> web.StreamResponse:
        """Changes are made by the node that has the stream: the others hand the request on over 5080."""
        headers = {"ClusterAuthorization": jwt.sign(self._cluster_key, lifetime=5)}
        url = f"http://{owner}:5080/{self.name}{path}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10, connect=2)) as session,
            session.request(request.method, url, data=body, headers=headers) as answer,
        ):
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    async def _change(self, method: str, known: Broadcast, rest: list[str], body: bytes) -> web.Response:
        live = known.status == "broadcasting"
        if method == "PUT" and not rest:
            name = str(json.loads(body)["name"])
            changed = Broadcast(known.streamId, name, known.status, known.originAdress, known.zombi)
            await self._registry.save(self.name, changed)
        elif method == "DELETE" and not rest:
            await self._registry.delete(self.name, known.streamId)
        elif method != "POST" or rest != ["stop"]:
            return error(HTTPStatus.NOT_FOUND)
        if live and method != "PUT":
            await self._media.drop_publisher(self.name, known.streamId)
        return result(True)


async def _converse(request: web.BaseRequest, socket: web.WebSocketResponse) -> web.StreamResponse:
    if not socket.can_prepare(request):
        return error(HTTPStatus.NOT_FOUND)
    await socket.prepare(request)
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        try:
            command = json.loads(message.data).get("command")
        except (ValueError, AttributeError):
            continue
        if command == "ping":
            await socket.send_json({"command": "pong"})
    return socket
