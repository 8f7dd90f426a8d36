"""A request on port 5080: connector, valves, choice of the application, headers that all answers have."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from .application import Application
from .root import RootApplication, error
from .settings import Settings
from .tomcat import BadRequestError, Client, normalise, remote_ip_valve

log = logging.getLogger("stand-in")

# A SETTINGS frame, then GOAWAY: the stand-in agrees to h2c, as the original does, but speaks no more of it.
_H2C_GOODBYE = bytes.fromhex("0000000400000000000000080700000000000000000000000000")


class Server:
    def __init__(self, settings: Settings, root: RootApplication, apps: Mapping[str, Application]) -> None:
        self._settings = settings
        self._root = root
        self._apps = apps
        # What is answered while starting; None when ready.
        self.root_status: HTTPStatus | None = HTTPStatus.INTERNAL_SERVER_ERROR
        self.apps_status: HTTPStatus | None = HTTPStatus.FORBIDDEN

    async def answer_5080(self, request: web.BaseRequest) -> web.StreamResponse:
        common = {
            "Access-Control-Allow-Origin": "*",
            "X-Stand-In-Node": self._settings.host_name,
            "Server": "ant-media-stand-in",
        }
        if _upgrades_to_h2c(request):
            return await _agree_to_h2c(request, common)
        client: Client | None = None
        try:
            client = remote_ip_valve(
                request.remote or "",
                request.headers.getall("X-Forwarded-For", []),
                request.headers.getall("X-Forwarded-Proto", []),
            )
            # A WebSocket's headers leave before its handler returns, so it gets them before it starts.
            socket = web.WebSocketResponse()
            socket.headers.update(common)
            response = await self._dispatch(request, normalise(request.raw_path), client, socket)
        except BadRequestError as refused:
            response = error(HTTPStatus.BAD_REQUEST, str(refused))
        except Exception:
            log.exception("%s %s", request.method, request.raw_path)
            response = error(HTTPStatus.INTERNAL_SERVER_ERROR)
        log.info(
            '%s "%s %s" %d', client and client.address, request.method, request.raw_path, response.status
        )
        if not response.prepared:
            response.headers.update(common)
            if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR):
                response.force_close()
        return response

    async def _dispatch(
        self, request: web.BaseRequest, path: str, client: Client, socket: web.WebSocketResponse
    ) -> web.StreamResponse:
        app = self._apps.get(path.split("/")[1])
        status = self.apps_status if app else self.root_status
        if status:
            return error(status, "starting")
        if request.method == "OPTIONS":
            allow = {"Access-Control-Allow-Methods": "GET,POST,PUT,DELETE,OPTIONS"}
            return web.Response(headers={**allow, "Access-Control-Allow-Headers": "*"})
        if app is None:
            return await self._root.answer(request, path, client)
        if path == f"/{app.name}":
            return web.Response(status=HTTPStatus.FOUND, headers={"Location": f"/{app.name}/"})
        return await app.answer(request, path.removeprefix(f"/{app.name}"), client, socket)

    async def answer_origin_port(self, request: web.BaseRequest) -> web.StreamResponse:
        """Port 5000, for other nodes: the streams that were published here."""
        match request.path.split("/"):
            case ["", app, "streams", name] if app in self._apps:
                file = self._apps[app].own_file(name)
                return error(HTTPStatus.NOT_FOUND) if file is None else file
            case _:
                return error(HTTPStatus.NOT_FOUND)


def _upgrades_to_h2c(request: web.BaseRequest) -> bool:
    upgrade = request.headers.get("Upgrade", "").lower()
    return upgrade == "h2c" and "upgrade" in request.headers.get("Connection", "").lower()


async def _agree_to_h2c(request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=HTTPStatus.SWITCHING_PROTOCOLS, headers=headers)
    response.headers.update({"Connection": "Upgrade", "Upgrade": "h2c"})
    response.force_close()
    await response.prepare(request)
    if request.transport:
        request.transport.write(_H2C_GOODBYE)
    return response
