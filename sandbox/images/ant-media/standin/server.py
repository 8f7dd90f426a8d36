"""Handles requests on port 5080: path normalization, client address, choice of the application and common headers."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from .application import Application
from .root import RootApplication, error_response
from .settings import Settings
from .tomcat import BadRequestError, Client, identify_client, normalize_path

log = logging.getLogger("stand-in")

# A SETTINGS frame, then GOAWAY: the stand-in accepts the upgrade to h2c, as the original does, but does not speak HTTP/2.
_SETTINGS_AND_GOAWAY = bytes.fromhex("0000000400000000000000080700000000000000000000000000")


class Server:
    """The HTTP server of ports 5080 and 5000."""

    def __init__(self, settings: Settings, root: RootApplication, apps: Mapping[str, Application]) -> None:
        self._settings = settings
        self._root = root
        self._apps = apps
        # The status of all responses during the start; None when ready.
        self.root_status: HTTPStatus | None = HTTPStatus.INTERNAL_SERVER_ERROR
        self.apps_status: HTTPStatus | None = HTTPStatus.FORBIDDEN

    async def handle_request(self, request: web.BaseRequest) -> web.StreamResponse:
        common = {
            "Access-Control-Allow-Origin": "*",
            "X-Stand-In-Node": self._settings.host_name,
            "Server": "ant-media-stand-in",
        }
        if _requests_h2c_upgrade(request):
            return await _accept_h2c_upgrade(request, common)
        client: Client | None = None
        try:
            client = identify_client(
                request.remote or "",
                request.headers.getall("X-Forwarded-For", []),
                request.headers.getall("X-Forwarded-Proto", []),
            )
            # The headers of a WebSocket handshake are sent before the handler returns, so they are set here.
            socket = web.WebSocketResponse()
            socket.headers.update(common)
            response = await self._dispatch(request, normalize_path(request.raw_path), client, socket)
        except BadRequestError as refused:
            response = error_response(HTTPStatus.BAD_REQUEST, str(refused))
        except Exception:
            log.exception("%s %s", request.method, request.raw_path)
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR)
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
            return error_response(status, "starting")
        if request.method == "OPTIONS":
            allow = {"Access-Control-Allow-Methods": "GET,POST,PUT,DELETE,OPTIONS"}
            return web.Response(headers={**allow, "Access-Control-Allow-Headers": "*"})
        if app is None:
            return await self._root.handle(request, path, client)
        if path == f"/{app.name}":
            return web.Response(status=HTTPStatus.FOUND, headers={"Location": f"/{app.name}/"})
        return await app.handle(request, path.removeprefix(f"/{app.name}"), client, socket)

    async def handle_origin_request(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serves streams that were published on this node, to other nodes on port 5000."""
        match request.path.split("/"):
            case ["", app, "streams", name] if app in self._apps:
                file = self._apps[app].read_local_file(name)
                return error_response(HTTPStatus.NOT_FOUND) if file is None else file
            case _:
                return error_response(HTTPStatus.NOT_FOUND)


def _requests_h2c_upgrade(request: web.BaseRequest) -> bool:
    upgrade = request.headers.get("Upgrade", "").lower()
    return upgrade == "h2c" and "upgrade" in request.headers.get("Connection", "").lower()


async def _accept_h2c_upgrade(request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=HTTPStatus.SWITCHING_PROTOCOLS, headers=headers)
    response.headers.update({"Connection": "Upgrade", "Upgrade": "h2c"})
    response.force_close()
    await response.prepare(request)
    if request.transport:
        request.transport.write(_SETTINGS_AND_GOAWAY)
    return response
