"""A streaming application such as LiveApp: HLS, WebSocket and REST API."""

import json
import re
import secrets
import time
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, web

from . import jwt
from .app_settings import AppSettings
from .media import MediaServer
from .recordings import redirect
from .registry import Broadcast, Registry
from .root import VERSION, error_response, json_response, result_response
from .settings import WEBAPPS, Settings
from .tomcat import Client, Sessions

ORIGIN_PORT = 5000
# Without a request for this time, a session is no viewer any more (ViewerStats: ten times hlsTime).
VIEWER_SECONDS = 20.0
HLS = (".m3u8", ".ts")
CONTENT_TYPES = {
    ".m3u8": ("application/vnd.apple.mpegurl", "max-age=0"),
    ".ts": ("video/mp2t", "max-age=10"),
    ".mp4": ("video/mp4", ""),
}


class Application:
    """A streaming application and its sessions."""

    def __init__(
        self,
        settings: Settings,
        app_settings: AppSettings,
        registry: Registry,
        media: MediaServer,
    ) -> None:
        self.name = app_settings.application
        self._settings = settings
        self._app_settings = app_settings
        self._registry = registry
        self._media = media
        self._sessions = Sessions(f"/{self.name}")
        self._viewers: dict[tuple[str, str], float] = {}
        """The time of the last request, by stream and session."""

    @property
    def _cluster_key(self) -> str:
        """The key with which the cluster's nodes authenticate to each other."""
        return str(self._app_settings.values["clusterCommunicationKey"])

    async def handle(
        self, request: web.BaseRequest, path: str, client: Client, socket: web.WebSocketResponse
    ) -> web.StreamResponse:
        """Handles a request. `path` is relative to the application. `socket` is the response to a WebSocket handshake."""
        if path == "/":
            return web.Response(text=f"{self.name} of the Ant Media Server stand-in\n")
        if path == "/websocket":
            return await _answer_websocket(request, socket)
        if path.startswith("/streams/"):
            if self._app_settings.plays_only_with_token:
                # The original's Enterprise Edition checks the token before it looks for the file. The stand-in issues no tokens.
                return error_response(HTTPStatus.FORBIDDEN, "Invalid Token")
            if location := redirect(path, self._app_settings.values):
                return web.Response(status=HTTPStatus.FOUND, headers={"Location": location})
            name = path.removeprefix("/streams/")
            response = await self._serve_stream_file(name)
            session = self._sessions.find(request.headers.getall("Cookie", []))
            if session is None:
                session = self._sessions.create()
                cookie = self._sessions.format_cookie(session, secure=client.secure)
                response.headers.add("Set-Cookie", cookie)
            # StatisticsFilter: each session that got a playlist or a segment is a viewer.
            if request.method == "GET" and Path(name).suffix in HLS and response.status < 400:
                self._viewers[_find_stream(name), session.id] = time.monotonic()
            return response
        if path.startswith("/rest/"):
            return await self._handle_rest(request, path, client)
        return error_response(HTTPStatus.NOT_FOUND)

    def count_viewers(self) -> int:
        """Returns the number of HLS viewers that this node serves."""
        oldest = time.monotonic() - VIEWER_SECONDS
        self._viewers = {viewer: last for viewer, last in self._viewers.items() if last > oldest}
        return len(self._viewers)

    def read_local_file(self, name: str) -> web.StreamResponse | None:
        """Returns a file of a stream that was published on this node, or None."""
        file = WEBAPPS / self.name / "streams" / name
        if "/" in name or file.suffix not in CONTENT_TYPES or not file.is_file():
            return None
        content_type, cache = CONTENT_TYPES[file.suffix]
        caching = {"Cache-Control": cache} if cache else {}
        return web.FileResponse(file, headers={"Content-Type": content_type, **caching})

    async def _serve_stream_file(self, name: str) -> web.StreamResponse:
        broadcast = None
        if Path(name).suffix in HLS:
            # The original reads the stream's record for its limit of viewers before it serves anything, also its own
            # files (StatisticsFilter.doFilter). Without its database it returns 500.
            broadcast = await self._registry.find_broadcast(self.name, _find_stream(name))
        local = self.read_local_file(name)
        if local is not None:
            return local
        if broadcast and broadcast.originAdress not in (None, self._settings.address):
            return await self._fetch_from_origin(f"http://{broadcast.originAdress}:{ORIGIN_PORT}", name)
        return error_response(HTTPStatus.NOT_FOUND)

    async def _fetch_from_origin(self, origin: str, name: str) -> web.StreamResponse:
        timeout = aiohttp.ClientTimeout(total=10, connect=2)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{origin}/{self.name}/streams/{name}") as answer,
            ):
                if answer.status != HTTPStatus.OK:
                    return error_response(HTTPStatus.NOT_FOUND)
                headers = {key: answer.headers[key] for key in ("Content-Type", "Cache-Control")}
                return web.Response(body=await answer.read(), headers=headers)
        except (aiohttp.ClientError, TimeoutError):
            return error_response(HTTPStatus.NOT_FOUND, "origin unreachable")

    async def _handle_rest(self, request: web.BaseRequest, path: str, client: Client) -> web.StreamResponse:
        from_node = jwt.is_valid_token(self._cluster_key, request.headers.get("ClusterAuthorization", ""))
        allowed = any(client.address in network for network in self._app_settings.rest_networks)
        # The original's IPFilter searches the path as it was sent, so `/LiveApp/rest/v2/acm/../version` passes.
        names_acm = "rest/v2/acm" in request.raw_path.partition("?")[0]
        if not from_node and not allowed and not names_acm:
            return error_response(HTTPStatus.FORBIDDEN, "Not allowed IP")
        body = await request.read()
        match request.method, path.removeprefix("/rest/v2/").rstrip("/").split("/"):
            case "GET", ["version"]:
                return json_response(VERSION)
            case "GET", ["broadcasts", "count" | "active-live-stream-count" as counted]:
                broadcasts = await self._registry.list_broadcasts(self.name)
                live = [one for one in broadcasts if counted == "count" or one.status == "broadcasting"]
                return json_response({"number": len(live)})
            case "GET", ["broadcasts", "list", offset, size] if (offset + size).isdecimal():
                broadcasts = await self._registry.list_broadcasts(self.name)
                page = broadcasts[int(offset) : int(offset) + int(size)]
                return json_response([broadcast.to_json() for broadcast in page])
            case "POST", ["broadcasts", "create"]:
                wanted = json.loads(body or b"{}")
                id_ = str(wanted.get("streamId") or secrets.token_hex(8))
                new = Broadcast(id_, str(wanted.get("name", "")), "created", None, zombi=False)
                await self._registry.save_broadcast(self.name, new)
                return json_response(new.to_json())
            case "GET", ["broadcasts", id_]:
                known = await self._registry.find_broadcast(self.name, id_)
                return json_response(known.to_json()) if known else error_response(HTTPStatus.NOT_FOUND)
            case "POST" | "PUT" | "DELETE", ["broadcasts", id_, *rest]:
                known = await self._registry.find_broadcast(self.name, id_)
                if known is None:
                    return error_response(HTTPStatus.NOT_FOUND)
                if known.originAdress not in (None, self._settings.address) and not from_node:
                    return await self._forward_to_owner(request, path, body, str(known.originAdress))
                return await self._change_broadcast(request.method, known, rest, body)
            case _:
                return error_response(HTTPStatus.NOT_FOUND)

    async def _forward_to_owner(
        self, request: web.BaseRequest, path: str, body: bytes, owner: str
    ) -> web.StreamResponse:
        """Forwards a change over port 5080 to the node that has the stream."""
        headers = {"ClusterAuthorization": jwt.sign_token(self._cluster_key, lifetime=5)}
        url = f"http://{owner}:5080/{self.name}{path}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10, connect=2)) as session,
            session.request(request.method, url, data=body, headers=headers) as answer,
        ):
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    async def _change_broadcast(
        self, method: str, known: Broadcast, rest: list[str], body: bytes
    ) -> web.Response:
        live = known.status == "broadcasting"
        if method == "PUT" and not rest:
            name = str(json.loads(body)["name"])
            changed = Broadcast(known.streamId, name, known.status, known.originAdress, known.zombi)
            await self._registry.save_broadcast(self.name, changed)
        elif method == "DELETE" and not rest:
            await self._registry.delete_broadcast(self.name, known.streamId)
        elif method != "POST" or rest != ["stop"]:
            return error_response(HTTPStatus.NOT_FOUND)
        if live and method != "PUT":
            await self._media.drop_publisher(self.name, known.streamId)
        return result_response(True)


def _find_stream(name: str) -> str:
    """Returns the id of the stream that a playlist or a segment belongs to."""
    file = Path(name)
    return file.stem if file.suffix == ".m3u8" else re.sub(r"-\d+$", "", file.stem)


async def _answer_websocket(request: web.BaseRequest, socket: web.WebSocketResponse) -> web.StreamResponse:
    if not socket.can_prepare(request):
        return error_response(HTTPStatus.NOT_FOUND)
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
