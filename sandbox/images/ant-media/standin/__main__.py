"""Starts and stops the server, in the original's order and compressed time."""

import asyncio
import logging
import os
import secrets
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web
from redis.exceptions import RedisError

from . import settings as configuration
from .application import ORIGIN_PORT, Application
from .media import MediaServer
from .registry import HEARTBEAT, FileStore, Registry, connect
from .root import RootApplication
from .server import Server
from .settings import HOME, LOGS, Settings, UnusableDatabaseError

log = logging.getLogger("stand-in")
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
STOPPING_SECONDS = 2.0


async def run(settings: Settings) -> int:
    store = await connect(settings.database) if settings.database else FileStore(HOME / "server.db")
    registry = Registry(store, settings.address)
    apps = list(settings.rest_networks)
    media = MediaServer(apps, registry.publishing_started, registry.publishing_ended)
    key = await registry.communication_key(secrets.token_urlsafe(32))
    server = Server(
        settings,
        RootApplication(settings, registry),
        {name: Application(name, settings, registry, media, key) for name in apps},
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    listeners = await start(settings, server, registry, media)
    heart = asyncio.create_task(beat(registry)) if settings.database else None
    stopped, crashed = asyncio.create_task(stop.wait()), asyncio.create_task(media.ended())
    await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)

    if not stopped.done():
        log.error("nginx ended by itself, see rtmp.log")
        return 1
    log.info("stopping")
    for listener in listeners:
        await listener.stop()
    await media.stop()
    if heart:
        heart.cancel()
    try:
        await registry.leave(apps)
    except (RedisError, OSError) as error:
        log.error("still in the cluster's registry: %s", error)
    await asyncio.sleep(STOPPING_SECONDS)
    return SIGTERM_EXIT_CODE


async def start(
    settings: Settings, server: Server, registry: Registry, media: MediaServer
) -> list[web.TCPSite]:
    """Refused, 500, 403, 200; and the applications only when liveness has been green for 1.5 s."""
    if settings.database:
        await registry.heartbeat()
    await asyncio.sleep(0.6)
    listeners = [await listen(server.answer_5080, 5080)]
    await asyncio.sleep(0.4)
    server.root_status = HTTPStatus.FORBIDDEN
    await asyncio.sleep(0.4)
    server.root_status = None
    await asyncio.sleep(0.8)
    server.apps_status = HTTPStatus.INTERNAL_SERVER_ERROR
    await media.start()
    if settings.database:
        listeners.append(await listen(server.answer_origin_port, ORIGIN_PORT))
    await asyncio.sleep(0.7)
    server.apps_status = None
    log.info("ready")
    return listeners


async def listen(handler: Handler, port: int) -> web.TCPSite:
    # Idle connections are kept for ever, as the original's keepAliveTimeout of -1 says.
    runner = web.ServerRunner(web.Server(handler, keepalive_timeout=86400.0, access_log=None))
    await runner.setup()
    # Listening ends at a stop, connections when the process does.
    site = web.TCPSite(runner, "0.0.0.0", port, backlog=1024)
    await site.start()
    return site


async def beat(registry: Registry) -> None:
    while True:
        try:
            await registry.heartbeat()
        except (RedisError, OSError) as error:
            log.error("no heartbeat: %s", error)
        await asyncio.sleep(HEARTBEAT)


def main() -> int:
    to_file = logging.FileHandler(LOGS / "ant-media-server.log")
    to_errors = logging.StreamHandler(sys.stderr)  # The unit appends it to antmedia-error.log.
    to_errors.setLevel(logging.ERROR)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[to_file, to_errors]
    )
    instance_id = HOME / "conf/instanceId"
    if not instance_id.exists():
        instance_id.write_text(str(uuid.uuid4()))
    try:
        return asyncio.run(run(configuration.read()))
    except UnusableDatabaseError as error:
        # It ends without an error code, so Restart=on-failure does not bring it back.
        log.error("the server stops: %s", error)
        return 0


if __name__ == "__main__":
    # A thread that still looks a name up must not hold up the end.
    code = main()
    logging.shutdown()
    os._exit(code)
