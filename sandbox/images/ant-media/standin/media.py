"""RTMP ingest and HLS with nginx and its RTMP module, as a child process of the server."""

import asyncio
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from .resources import Resources
from .settings import LOGS, WEBAPPS

log = logging.getLogger("stand-in")

RUN = Path("/run/antmedia")
_FILE = RUN / "nginx.conf"
# nginx reports publishers to this address. The original's JMX uses the same port, so a port scan finds the same listeners.
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
        listen {rtmp_port};
        notify_method post;
        on_publish http://{events}/publish;
        on_publish_done http://{events}/publish_done;
        on_record_done http://{events}/record_done;
{applications}
    }}
}}
"""
_APPLICATION = """\
        application {name} {{
            live on;
            deny play all;  # RTMP playback is disabled in the original too.
            hls on;
            hls_path {streams};
            hls_fragment 2s;
            hls_playlist_length 10s;
            recorder mp4 {{
                record all manual;
                record_path {streams};
                record_suffix .mp4{unfinished};
            }}
        }}"""

UNFINISHED = ".tmp_extension"
"""The ending of a recording until its stream ends."""

RTMP_PORT = 1935

PublishCallback = Callable[[str, str], Awaitable[None]]
RecordCallback = Callable[[str, Path], Awaitable[None]]
"""Receives the application and the finished file."""


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


class MediaServer:
    """The nginx process and the HTTP server that receives its notifications."""

    def __init__(
        self,
        apps: list[str],
        resources: Resources,
        on_publish: PublishCallback,
        on_publish_done: PublishCallback,
        on_record_done: RecordCallback,
    ) -> None:
        self._apps = apps
        self._resources = resources
        self._on_record_done = on_record_done
        self._callbacks = {"/publish": on_publish, "/publish_done": on_publish_done}
        self.live: set[tuple[str, str]] = set()
        """Application and id of the streams that are published on this node."""
        self._nginx: asyncio.subprocess.Process | None = None
        self._events = web.ServerRunner(web.Server(self._receive_notification))

    async def start(self) -> None:
        for app in self._apps:
            streams = WEBAPPS / app / "streams"
            streams.mkdir(exist_ok=True)
            for file in streams.iterdir():
                # Streams from before a crash are not live. Other files are recordings.
                if file.suffix in (".m3u8", ".ts"):
                    file.unlink()
        await self._events.setup()
        await web.TCPSite(self._events, *EVENTS).start()
        self._write_configuration()
        self._nginx = await asyncio.create_subprocess_exec(
            "/usr/sbin/nginx", "-c", str(_FILE), "-e", str(LOGS / "rtmp.log")
        )
        # The server is ready only when publishers can connect. wait_for_exit notices an nginx that does not start.
        while self._nginx.returncode is None and not await _listens(RTMP_PORT):
            await asyncio.sleep(0.05)

    async def add(self, app: str) -> None:
        """Receives streams of another application too. The live ones go on."""
        (WEBAPPS / app / "streams").mkdir(exist_ok=True)
        self._apps.append(app)
        # Before the start, the file is not written yet.
        if self._nginx:
            self._write_configuration()
            self._nginx.send_signal(signal.SIGHUP)

    def _write_configuration(self) -> None:
        _FILE.write_text(
            _CONFIGURATION.format(
                run=RUN,
                rtmp_port=RTMP_PORT,
                events="{}:{}".format(*EVENTS),
                applications="\n".join(
                    _APPLICATION.format(name=app, streams=WEBAPPS / app / "streams", unfinished=UNFINISHED)
                    for app in self._apps
                ),
            )
        )

    async def wait_for_exit(self) -> int:
        """Waits until nginx exits and returns its exit code."""
        assert self._nginx is not None
        return await self._nginx.wait()

    async def stop(self) -> None:
        if self._nginx and self._nginx.returncode is None:
            self._nginx.terminate()
            await self._nginx.wait()

    async def drop_publisher(self, app: str, stream: str) -> None:
        await self._control("drop/publisher", app=app, name=stream)

    async def record(self, app: str, stream: str) -> None:
        """Starts to record a stream that is about to be published."""
        # nginx knows the stream only when its notification has been answered. Its answer is then the file's path.
        while not await self._control("record/start", app=app, name=stream, rec="mp4"):
            await asyncio.sleep(0.1)

    async def _control(self, action: str, **parameters: str) -> str:
        connector = aiohttp.UnixConnector(str(RUN / "control.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://nginx/control/{action}", params=parameters) as response,
        ):
            response.raise_for_status()
            return await response.text()

    async def _receive_notification(self, request: web.BaseRequest) -> web.Response:
        form = await request.post()
        app, stream = str(form["app"]), str(form["name"])
        if request.path == "/record_done":
            unfinished = Path(str(form["path"]))
            await self._on_record_done(app, unfinished.with_name(unfinished.name.removesuffix(UNFINISHED)))
            return web.Response()
        # The stream name is used as a file name.
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", stream):
            return web.Response(status=403)
        if request.path == "/publish" and not self._resources.are_enough():
            log.info("There is not enough resource to rtmp ingest stream: %s", stream)
            return web.Response(status=403)
        if request.path == "/publish":
            self.live.add((app, stream))
        else:
            self.live.discard((app, stream))
        await self._callbacks[request.path](app, stream)
        return web.Response()
