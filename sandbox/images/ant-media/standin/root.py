"""The root application: web panel, logging in, liveness, the cluster's nodes."""

import asyncio
import hashlib
import html
import json
import re
import time
from http import HTTPStatus

from aiohttp import web

from . import jwt
from .registry import Registry
from .settings import Settings
from .tomcat import Client, Session, Sessions

VERSION = {"versionName": "3.0.3", "versionType": "Enterprise Edition", "buildNumber": "20261101_1200"}
FAILED_LOGINS_ALLOWED = 3
BLOCKED_SECONDS = 300
OPEN_TO_ALL = {
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


def reply(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    text = json.dumps(value, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")


def result(success: bool, message: str | None = None) -> web.Response:
    return reply({"success": success, "message": message, "dataId": None, "errorId": 0})


def error(status: HTTPStatus, message: str = "") -> web.Response:
    return reply({"success": False, "message": message or status.phrase}, status)


class RootApplication:
    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._sessions = Sessions("/")
        self._failures: dict[str, list[float]] = {}

    async def answer(self, request: web.BaseRequest, path: str, client: Client) -> web.StreamResponse:
        response = await self._filtered(request, path, client)
        response.headers["X-Frame-Options"] = "DENY"
        if client.secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000;includeSubDomains"
        return response

    async def _filtered(self, request: web.BaseRequest, path: str, client: Client) -> web.StreamResponse:
        if not any(client.address in network for network in self._settings.dashboard_networks):
            return error(HTTPStatus.FORBIDDEN, "Not allowed IP")
        if path in ("/", "/index.html"):
            page = _PANEL.format(node=html.escape(self._settings.host_name))
            return web.Response(text=page, content_type="text/html")
        if not path.startswith("/rest/"):
            return error(HTTPStatus.NOT_FOUND)
        if path in ("/rest/v2/liveness", "/rest/v2/first-login-status", "/rest/v2/users/initial"):
            return await self._rest(request, path, None)
        cookies = request.headers.getall("Cookie", [])
        session = self._sessions.find(cookies)
        created = session is None
        session = session or self._sessions.create()
        if path in OPEN_TO_ALL or session.user or self._has_token(request):
            response: web.StreamResponse = await self._rest(request, path, session)
        else:
            response = error(HTTPStatus.FORBIDDEN, "Log in first")
        if created:
            response.headers.add("Set-Cookie", self._sessions.cookie(session, secure=client.secure))
        return response

    def _has_token(self, request: web.BaseRequest) -> bool:
        secret = self._settings.server_jwt_secret
        return secret is not None and jwt.valid(secret, request.headers.get("ProxyAuthorization", ""))

    async def _rest(self, request: web.BaseRequest, path: str, session: Session | None) -> web.Response:
        match request.method, path.removeprefix("/rest/v2/").rstrip("/"):
            case "GET" | "HEAD", "liveness":
                return await self._liveness()
            case "GET", "first-login-status":
                return result(not await self._registry.users())
            case "POST", "users/initial":
                return await self._initial_user(await request.text())
            case "POST", "users/authenticate" if session:
                return await self._authenticate(await request.text(), session)
            case "GET", "authentication-status" if session:
                return result(session.user is not None)
            case "GET", "version":
                return reply(VERSION)
            case "GET", "applications":
                return reply({"applications": sorted(self._settings.rest_networks)})
            case "GET", "cluster-mode-status":
                return result(self._settings.database is not None)
            case "GET", "cluster/node-count":
                return reply({"number": len(await self._nodes())})
            case "GET", tail if match := re.fullmatch(r"cluster/nodes/(\d+)/(\d+)", tail):
                offset, size = (int(number) for number in match.groups())
                return reply((await self._nodes())[offset : offset + size])
            case "DELETE", tail if match := re.fullmatch(r"cluster/node/([^/]+)", tail):
                await self._registry.remove_node(match[1])
                return result(True)
            case _:
                return error(HTTPStatus.NOT_FOUND)

    async def _liveness(self) -> web.Response:
        host = self._settings.host_name
        # The original asks for its own name each time, and fails when that has no address.
        await asyncio.get_running_loop().getaddrinfo(host, None)
        return reply({"host": host, "status": "ok"})

    async def _nodes(self) -> list[dict[str, object]]:
        if self._settings.database is None:
            raise LookupError("no cluster")  # The original has no such bean when standalone: 500.
        return [node.json() for node in await self._registry.nodes()]

    async def _initial_user(self, body: str) -> web.Response:
        user = json.loads(body)
        email, password = str(user["email"]), str(user["password"])
        if await self._registry.users():
            return result(False, "There is a user already")
        await self._registry.add_user(email, _md5(password))
        return result(True)

    async def _authenticate(self, body: str, session: Session) -> web.Response:
        user = json.loads(body)
        email, password = str(user["email"]), str(user["password"])
        now = time.monotonic()
        failures = [at for at in self._failures.get(email, []) if now - at < BLOCKED_SECONDS]
        if len(failures) >= FAILED_LOGINS_ALLOWED:
            return result(False, "Too many failed attempts: blocked for some minutes")
        # Stored is md5 of what users/initial was sent. Panels send md5 of what is typed, tools may send it
        # plain: so users/initial wants md5 of the password, and whoever sends that plain locks the panel out.
        known = (await self._registry.users()).get(email)
        if known in (_md5(password), _md5(_md5(password))):
            self._failures.pop(email, None)
            session.user = email
            return result(True, "system/ADMIN")
        self._failures[email] = [*failures, now]
        return result(False)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
