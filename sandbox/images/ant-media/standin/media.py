"""RTMP ingest and HLS: an nginx with the RTMP module, run by and for this server."""

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from .settings import LOGS, WEBAPPS

RUN = Path("/run/antmedia")
# nginx tells of publishers here. The original's JMX has this port, so a scan finds the same listeners.
EVENTS = ("127.0.0.1", 9999)

_CONFIGURATION = """\
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
worker_processes 1;
pid {run}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {run}/t1; proxy_temp_path {run}/t2; fastcgi_temp_path {run}/t3;
    uwsgi_temp_path {run}/t4; scgi_temp_path {run}/t5;
    server {{
        listen unix:{run}/control.sock;
        location /control {{ rtmp_control all; }}
    }}
}}
rtmp {{
    access_log off;
    server {{
        listen 1935;
        notify_method post;
        on_publish http://{events}/publish;
        on_publish_done http://{events}/publish_done;
{applications}
    }}
}}
"""
_APPLICATION = """\
        application {name} {{
            live on;
            deny play all;  # RTMP playback is off in the original too.
            hls on;
            hls_path {streams};
            hls_fragment 2s;
            hls_playlist_length 10s;
        }}"""

OnPublish = Callable[[str, str], Awaitable[None]]


class MediaServer:
    def __init__(self, apps: list[str], started: OnPublish, ended: OnPublish) -> None:
        self._apps = apps
        self._callbacks = {"/publish": started, "/publish_done": ended}
        self._nginx: asyncio.subprocess.Process | None = None
        self._events = web.ServerRunner(web.Server(self._event))

    async def start(self) -> None:
        for app in self._apps:
            streams = WEBAPPS / app / "streams"
            shutil.rmtree(streams, ignore_errors=True)  # What a crash left is not live any more.
            streams.mkdir()
        await self._events.setup()
        await web.TCPSite(self._events, *EVENTS).start()
        file = RUN / "nginx.conf"
        file.write_text(
            _CONFIGURATION.format(
                run=RUN,
                events="{}:{}".format(*EVENTS),
                applications="\n".join(
                    _APPLICATION.format(name=app, streams=WEBAPPS / app / "streams") for app in self._apps
                ),
            )
        )
        self._nginx = await asyncio.create_subprocess_exec(
            "/usr/sbin/nginx", "-c", str(file), "-e", str(LOGS / "rtmp.log")
        )

    async def ended(self) -> int:
        assert self._nginx is not None
        return await self._nginx.wait()

    async def stop(self) -> None:
        if self._nginx and self._nginx.returncode is None:
            self._nginx.terminate()
            await self._nginx.wait()

    async def drop_publisher(self, app: str, stream: str) -> None:
        connector = aiohttp.UnixConnector(str(RUN / "control.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(
                "http://nginx/control/drop/publisher", params={"app": app, "name": stream}
            ) as response,
        ):
            response.raise_for_status()

    async def _event(self, request: web.BaseRequest) -> web.Response:
        form = await request.post()
        app, stream = str(form["app"]), str(form["name"])
        # The name becomes a file's.
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", stream):
            return web.Response(status=403)
        await self._callbacks[request.path](app, stream)
        return web.Response()
