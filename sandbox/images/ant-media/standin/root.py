"""The root application: web panel, login, health check and the list of nodes."""

import asyncio
import hashlib
import html
import json
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from . import jwt
from .registry import Registry
from .resources import Resources
from .server_settings import ServerSettings
from .settings import Settings
from .tomcat import Client, Session, Sessions

if TYPE_CHECKING:  # applications.py imports this module.
    from .applications import Applications

VERSION = {"versionName": "3.0.3", "versionType": "Enterprise Edition", "buildNumber": "20261101_1200"}
FAILED_LOGINS_ALLOWED = 3
BLOCKED_SECONDS = 300
PUBLIC_PATHS = {
    "/rest/v2/liveness",
    "/rest/v2/first-login-status",
    "/rest/v2/authentication-status",
    "/rest/v2/users/initial",
    "/rest/v2/users/authenticate",
}

_PANEL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Ant Media Server (stand-in)</title></head>
<body><h1>Web panel of the Ant Media Server stand-in</h1>
<p>This is not Ant Media's software. Answered by <b>{node}</b>.</p></body></html>
"""


def json_response(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    text = json.dumps(value, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")


def result_response(success: bool, message: str | None = None) -> web.Response:
    return json_response({"success": success, "message": message, "dataId": None, "errorId": 0})


def error_response(status: HTTPStatus, message: str = "") -> web.Response:
    return json_response({"success": False, "message": message or status.phrase}, status)


class RootApplication:
    """The application at `/`, which serves the panel and the root REST API."""

    def __init__(
        self,
        settings: Settings,
        server_settings: ServerSettings,
        resources: Resources,
        applications: "Applications",
        registry: Registry,
    ) -> None:
        self._settings = settings
        self._server_settings = server_settings
        self._resources = resources
        self._applications = applications
        self._registry = registry
        self._sessions = Sessions("/")
        self._failures: dict[str, list[float]] = {}

    async def handle(self, request: web.BaseRequest, path: str, client: Client) -> web.StreamResponse:
        response = await self._handle_allowed_request(request, path, client)
        response.headers["X-Frame-Options"] = "DENY"
        if client.secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000;includeSubDomains"
        return response

    async def _handle_allowed_request(
        self, request: web.BaseRequest, path: str, client: Client
    ) -> web.StreamResponse:
        if not any(client.address in network for network in self._settings.dashboard_networks):
            return error_response(HTTPStatus.FORBIDDEN, "Not allowed IP")
        if path in ("/", "/index.html"):
            page = _PANEL.format(node=html.escape(self._settings.host_name))
            return web.Response(text=page, content_type="text/html")
        if not path.startswith("/rest/"):
            return error_response(HTTPStatus.NOT_FOUND)
        # With a token, the original asks nothing else: a wrong one is refused even for the health check (AuthenticationFilter).
        token = request.headers.get("ProxyAuthorization", "")
        if token and self._settings.server_jwt_secret is not None and not self._is_valid(token):
            return error_response(HTTPStatus.FORBIDDEN, "Invalid Server JWT Token")
        if path in ("/rest/v2/liveness", "/rest/v2/first-login-status", "/rest/v2/users/initial"):
            return await self._handle_rest(request, path, None)
        cookies = request.headers.getall("Cookie", [])
        session = self._sessions.find(cookies)
        created = session is None
        session = session or self._sessions.create()
        if path in PUBLIC_PATHS or session.user or (token and self._is_valid(token)):
            response: web.StreamResponse = await self._handle_rest(request, path, session)
        else:
            response = error_response(HTTPStatus.FORBIDDEN, "Log in first")
        if created:
            response.headers.add("Set-Cookie", self._sessions.format_cookie(session, secure=client.secure))
        return response

    def _is_valid(self, token: str) -> bool:
        secret = self._settings.server_jwt_secret
        if secret == "":
            raise ValueError("Algorithm.HMAC256 refuses an empty secret")  # Becomes 500.
        return secret is not None and jwt.is_valid_token(secret, token)

    async def _handle_rest(
        self, request: web.BaseRequest, path: str, session: Session | None
    ) -> web.Response:
        match request.method, path.removeprefix("/rest/v2/").rstrip("/"):
            case "GET" | "HEAD", "liveness":
                return await self._check_liveness()
            case "GET", "first-login-status":
                return result_response(not await self._registry.list_users())
            case "POST", "users/initial":
                return await self._create_initial_user(await request.text())
            case "POST", "users/authenticate" if session:
                return await self._authenticate(await request.text(), session)
            case "GET", "authentication-status" if session:
                return result_response(session.user is not None)
            case "GET", "version":
                return json_response(VERSION)
            case "GET", "applications":
                return json_response({"applications": sorted(self._applications.running)})
            case "GET", "server-settings":
                return json_response(self._server_settings.values)
            case "POST", "server-settings":
                self._server_settings.replace(await request.json())
                return result_response(True)
            case "GET", "cpu-status":
                return json_response({"systemCPULoad": self._resources.cpu_load})
            case "GET", "system-memory-status":
                return json_response(self._resources.memory)
            # Without the application, the original fails with 500 here.
            case "GET", tail if match := re.fullmatch(r"applications/settings/([^/]+)", tail):
                return json_response(self._applications.settings[match[1]].values)
            case "POST", tail if match := re.fullmatch(r"applications/settings/([^/]+)", tail):
                return result_response(
                    await self._applications.settings[match[1]].replace(await request.json())
                )
            case "POST", tail if match := re.fullmatch(r"applications/([A-Za-z0-9_]+)", tail):
                return result_response(await self._applications.create(match[1]))
            case "GET", "cluster-mode-status":
                return result_response(self._settings.database is not None)
            case "GET", "cluster/node-count":
                return json_response({"number": len(await self._list_nodes())})
            case "GET", tail if match := re.fullmatch(r"cluster/nodes/(\d+)/(\d+)", tail):
                offset, size = (int(number) for number in match.groups())
                return json_response((await self._list_nodes())[offset : offset + size])
            case "DELETE", tail if match := re.fullmatch(r"cluster/node/([^/]+)", tail):
                await self._registry.remove_node(match[1])
                return result_response(True)
            case _:
                return error_response(HTTPStatus.NOT_FOUND)

    async def _check_liveness(self) -> web.Response:
        host = self._settings.host_name
        # The original resolves its own host name in every check, and fails if the name has no address.
        await asyncio.get_running_loop().getaddrinfo(host, None)
        return json_response({"host": host, "status": "ok"})

    async def _list_nodes(self) -> list[dict[str, object]]:
        if self._settings.database is None:
            raise LookupError(
                "no cluster"
            )  # Becomes 500, as in the original, which lacks this bean in standalone mode.
        return [node.to_json() for node in await self._registry.list_nodes()]

    async def _create_initial_user(self, body: str) -> web.Response:
        user = json.loads(body)
        email, password = str(user["email"]), str(user["password"])
        if await self._registry.list_users():
            return result_response(False, "A user exists already")
        await self._registry.add_user(email, _hash_md5(password))
        return result_response(True)

    async def _authenticate(self, body: str, session: Session) -> web.Response:
        user = json.loads(body)
        email, password = str(user["email"]), str(user["password"])
        now = time.monotonic()
        failures = [at for at in self._failures.get(email, []) if now - at < BLOCKED_SECONDS]
        if len(failures) >= FAILED_LOGINS_ALLOWED:
            return result_response(False, "Too many failed attempts: blocked for some minutes")
        # The registry holds the MD5 of what users/initial received. The panel sends the MD5 of the password, tools may send
        # the password itself. Thus users/initial must receive the MD5: with the password itself, the panel cannot log in.
        known = (await self._registry.list_users()).get(email)
        if known in (_hash_md5(password), _hash_md5(_hash_md5(password))):
            self._failures.pop(email, None)
            session.user = email
            return result_response(True, "system/ADMIN")
        self._failures[email] = [*failures, now]
        return result_response(False)


def _hash_md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
