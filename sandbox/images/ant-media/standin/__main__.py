"""Starts and stops the server in the phases and the time of the original."""

import asyncio
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from .app_settings import AppSettings
from .application import ORIGIN_PORT
from .applications import Applications
from .media import MediaServer
from .metrics import Metrics
from .recordings import Recordings
from .registry import DATABASE_ERRORS, HEARTBEAT, FileStore, Registry, connect_database
from .resources import Resources
from .root import RootApplication
from .server import Server
from .server_settings import FILE, ServerSettings
from .settings import HOME, LOGS, Settings, UnusableDatabaseError, read_properties, read_settings

log = logging.getLogger("stand-in")
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
STOP_SECONDS = 2.5
# Of the original on an idle machine. STAND_IN_START_SECONDS in the environment sets another time; all phases scale with it.
START_SECONDS = 9.5
# When each phase of the start begins, as a fraction of the start.
PORT_OPENS = 6.0 / START_SECONDS
LIVENESS_IS_FORBIDDEN = 6.5 / START_SECONDS
LIVENESS_IS_OK = 7.0 / START_SECONDS
APPLICATIONS_FAIL = 8.4 / START_SECONDS


class StartClock:
    """Times the phases of a start, which takes `seconds` from the start of the process."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Field 22 of stat: clock ticks since the boot. The second field, the command's name, may contain spaces.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        self._started = ticks / os.sysconf("SC_CLK_TCK")

    async def wait_for(self, fraction: float) -> None:
        """Waits until a fraction of the start has passed. A phase that is late, on a busy machine, delays those after it."""
        left = self._started + fraction * self._seconds - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._started -= min(left, 0)
        await asyncio.sleep(left)


async def run_server(settings: Settings, clock: StartClock) -> int:
    """Runs the server until SIGTERM or until nginx exits, and returns the exit code."""
    store = await connect_database(settings.database) if settings.database else FileStore(HOME / "server.db")
    registry = Registry(store, settings.address)
    resources = Resources(read_properties(FILE))
    app_settings: dict[str, AppSettings] = {}

    async def start_broadcast(app: str, stream: str) -> None:
        await registry.start_broadcast(app, stream)
        if app_settings[app].values["mp4MuxingEnabled"]:
            starting = asyncio.create_task(media.record(app, stream))
            background.add(starting)
            starting.add_done_callback(background.discard)

    background: set[asyncio.Task[None]] = set()
    media = MediaServer(
        list(settings.applications),
        resources,
        start_broadcast,
        registry.end_broadcast,
        Recordings(app_settings).finish,
    )
    applications = Applications(settings, app_settings, registry, media)
    root = RootApplication(settings, ServerSettings(), resources, applications, registry)
    server = Server(settings, root, applications.running)
    metrics = Metrics(settings, server, media, applications.running.values(), registry)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    starting = asyncio.create_task(
        start_in_phases(clock, settings, server, metrics, registry, media, applications)
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # A stop during the start ends the process at once.
        return SIGTERM_EXIT_CODE
    listeners = starting.result()
    heartbeats = asyncio.create_task(send_heartbeats(registry, applications)) if settings.database else None
    measuring = asyncio.create_task(resources.measure())
    crashed = asyncio.create_task(media.wait_for_exit())
    await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)

    if not stopped.done():
        log.error("nginx exited, see rtmp.log")
        return 1
    log.info("stopping")
    exit_time = time.monotonic() + STOP_SECONDS
    for listener in listeners:
        await listener.stop()
    await media.stop()
    measuring.cancel()
    if heartbeats:
        heartbeats.cancel()
    try:
        await registry.leave_cluster(list(applications.running))
    except DATABASE_ERRORS as error:
        log.error("could not remove this node from the cluster's registry: %s", error)
    await asyncio.sleep(exit_time - time.monotonic())
    return SIGTERM_EXIT_CODE


async def start_in_phases(
    clock: StartClock,
    settings: Settings,
    server: Server,
    metrics: Metrics,
    registry: Registry,
    media: MediaServer,
    applications: Applications,
) -> list[web.TCPSite]:
    """Starts as the original does: liveness refuses connections, then returns 500, 403 and 200, and the applications follow."""
    if settings.database:
        await registry.save_heartbeat()
    await clock.wait_for(PORT_OPENS)
    listeners = [
        await start_listener(server.handle_request, 5080),
        await start_listener(metrics.handle_request, settings.metrics_port),
    ]
    await clock.wait_for(LIVENESS_IS_FORBIDDEN)
    server.root_status = HTTPStatus.FORBIDDEN
    await clock.wait_for(LIVENESS_IS_OK)
    server.root_status = None
    await clock.wait_for(APPLICATIONS_FAIL)
    server.apps_status = HTTPStatus.INTERNAL_SERVER_ERROR
    await media.start()
    if settings.database:
        await applications.follow_cluster(starting=True)
        listeners.append(await start_listener(server.handle_origin_request, ORIGIN_PORT))
    await clock.wait_for(1)
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


async def send_heartbeats(registry: Registry, applications: Applications) -> None:
    while True:
        try:
            await registry.save_heartbeat()
            await applications.follow_cluster()
        except DATABASE_ERRORS as error:
            log.error("could not write the heartbeat: %s", error)
        await asyncio.sleep(HEARTBEAT)


def main() -> int:
    clock = StartClock(float(os.environ.get("STAND_IN_START_SECONDS") or START_SECONDS))
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
        return asyncio.run(run_server(read_settings(), clock))
    except UnusableDatabaseError as error:
        # Like a Java stack trace: the last cause is the reason.
        frames = "".join(f"\n\tat stand.in.Frame{number}" for number in range(10))
        log.error(
            "the server stops%s\nCaused by: no bean 'tomcat.cluster'%s\nCaused by: %s", frames, frames, error
        )
        # With exit code 0, Restart=on-failure does not start the server again.
        return 0


if __name__ == "__main__":
    # Exits without waiting for threads that are resolving a name.
    code = main()
    logging.shutdown()
    os._exit(code)
