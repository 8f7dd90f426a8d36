"""Starts and stops the server in the same order as the original, but faster."""

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

from .application import ORIGIN_PORT, Application
from .media import MediaServer
from .registry import HEARTBEAT, FileStore, Registry, connect_database
from .root import RootApplication
from .server import Server
from .settings import HOME, LOGS, Settings, UnusableDatabaseError, read_settings

log = logging.getLogger("stand-in")
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
STOPPING_SECONDS = 2.0


async def run_server(settings: Settings) -> int:
    """Runs the server until SIGTERM or until nginx exits, and returns the exit code."""
    store = await connect_database(settings.database) if settings.database else FileStore(HOME / "server.db")
    registry = Registry(store, settings.address)
    apps = list(settings.rest_networks)
    media = MediaServer(apps, registry.start_broadcast, registry.end_broadcast)
    key = await registry.agree_on_key(secrets.token_urlsafe(32))
    server = Server(
        settings,
        RootApplication(settings, registry),
        {name: Application(name, settings, registry, media, key) for name in apps},
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    listeners = await start_in_phases(settings, server, registry, media)
    heartbeats = asyncio.create_task(send_heartbeats(registry)) if settings.database else None
    stopped, crashed = asyncio.create_task(stop.wait()), asyncio.create_task(media.wait_for_exit())
    await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)

    if not stopped.done():
        log.error("nginx exited, see rtmp.log")
        return 1
    log.info("stopping")
    for listener in listeners:
        await listener.stop()
    await media.stop()
    if heartbeats:
        heartbeats.cancel()
    try:
        await registry.leave_cluster(apps)
    except (RedisError, OSError) as error:
        log.error("could not remove this node from the cluster's registry: %s", error)
    await asyncio.sleep(STOPPING_SECONDS)
    return SIGTERM_EXIT_CODE


async def start_in_phases(
    settings: Settings, server: Server, registry: Registry, media: MediaServer
) -> list[web.TCPSite]:
    """Starts as the original does: connection refused, then 500, 403, 200. Applications answer 1.5 s after liveness returns 200."""
    if settings.database:
        await registry.save_heartbeat()
    await asyncio.sleep(0.6)
    listeners = [await start_listener(server.handle_request, 5080)]
    await asyncio.sleep(0.4)
    server.root_status = HTTPStatus.FORBIDDEN
    await asyncio.sleep(0.4)
    server.root_status = None
    await asyncio.sleep(0.8)
    server.apps_status = HTTPStatus.INTERNAL_SERVER_ERROR
    await media.start()
    if settings.database:
        listeners.append(await start_listener(server.handle_origin_request, ORIGIN_PORT))
    await asyncio.sleep(0.7)
    server.apps_status = None
    log.info("ready")
    return listeners


async def start_listener(handler: RequestHandler, port: int) -> web.TCPSite:
    # Idle connections stay open, as with the original's keepAliveTimeout of -1.
    runner = web.ServerRunner(web.Server(handler, keepalive_timeout=86400.0, access_log=None))
    await runner.setup()
    # Stopping the site closes the listener. Connections close when the process exits.
    site = web.TCPSite(runner, "0.0.0.0", port, backlog=1024)
    await site.start()
    return site


async def send_heartbeats(registry: Registry) -> None:
    while True:
        try:
            await registry.save_heartbeat()
        except (RedisError, OSError) as error:
            log.error("could not write the heartbeat: %s", error)
        await asyncio.sleep(HEARTBEAT)


def main() -> int:
    to_file = logging.FileHandler(LOGS / "ant-media-server.log")
    to_errors = logging.StreamHandler(sys.stderr)  # The unit appends standard error to antmedia-error.log.
    to_errors.setLevel(logging.ERROR)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[to_file, to_errors]
    )
    instance_id = HOME / "conf/instanceId"
    if not instance_id.exists():
        instance_id.write_text(str(uuid.uuid4()))
    try:
        return asyncio.run(run_server(read_settings()))
    except UnusableDatabaseError as error:
        # With exit code 0, Restart=on-failure does not start the server again.
        log.error("the server stops: %s", error)
        return 0


if __name__ == "__main__":
    # Exits without waiting for threads that are resolving a name.
    code = main()
    logging.shutdown()
    os._exit(code)
