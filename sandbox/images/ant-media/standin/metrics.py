"""Metrics for Prometheus, on a port of their own: names, types, descriptions and labels of the original.

The original has them in releases after 3.0.3 (AntMediaServerMetrics, PrometheusMetricsServlet and PrometheusPortFilter in
Ant-Media-Server). Its metrics of Micrometer (jvm_*, system_*, process_*, disk_*, logback_*) are not included.
"""

from collections.abc import Collection
from http import HTTPStatus

from aiohttp import web

from .application import Application
from .media import MediaServer
from .registry import Registry
from .root import error_response
from .server import Server
from .settings import HOME, Settings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Of the original's gauges, these are always 0: the stand-in has no WebRTC, DASH, encoders, GPUs and worker queues.
_ZEROES = {
    "antmedia_streams_webrtc_live": "Number of local WebRTC live streams",
    "antmedia_viewers_webrtc": "Number of local WebRTC viewers",
    "antmedia_viewers_dash": "Number of local DASH viewers",
    "antmedia_encoders_blocked": "Number of blocked encoders",
    "antmedia_encoders_not_opened": "Number of encoders that could not be opened",
    "antmedia_publish_timeout_errors": "Number of publish timeout errors",
    "antmedia_gpu_count": "Number of GPUs available to Ant Media Server",
}


class Metrics:
    """Handles the requests to the port of the metrics."""

    def __init__(
        self,
        settings: Settings,
        server: Server,
        media: MediaServer,
        apps: Collection[Application],
        registry: Registry,
    ) -> None:
        self._settings = settings
        self._server = server
        self._media = media
        self._apps = apps
        self._registry = registry

    async def handle_request(self, request: web.BaseRequest) -> web.StreamResponse:
        # The port serves nothing else, and returns 404 when the metrics are off (Ant Media's page "Prometheus Support").
        if not self._settings.serves_metrics or request.path != "/metrics":
            return error_response(HTTPStatus.NOT_FOUND)
        if self._server.root_status:
            return error_response(self._server.root_status, "starting")
        return web.Response(body=self._render().encode(), headers={"Content-Type": CONTENT_TYPE})

    def _render(self) -> str:
        common = {
            "antmedia_instance_id": (HOME / "conf/instanceId").read_text().strip(),
            # The original asks checkip.amazonaws.com; without an answer it is this.
            "antmedia_instance_ip": "unknown",
            "antmedia_private_ip": self._settings.address,
        }
        labels = ",".join(f'{name}="{value}"' for name, value in common.items())

        def gauge(name: str, description: str, *samples: tuple[str, float]) -> str:
            head = f"# HELP {name} {description}\n# TYPE {name} gauge\n"
            return head + "".join(f"{name}{{{labels}{more}}} {float(value)}\n" for more, value in samples)

        viewers = sum(app.count_viewers() for app in self._apps)
        # The original adds up the averages of its applications, in whole milliseconds.
        query_time = len(self._apps) * self._registry.average_query_milliseconds
        queues = [(f',pool="{pool}"', 0) for pool in ("server", "webrtc")]
        return "".join(
            [
                gauge("antmedia_streams_live", "Number of local live streams", ("", len(self._media.live))),
                gauge("antmedia_viewers_hls", "Number of local HLS viewers", ("", viewers)),
                gauge(
                    "antmedia_db_query_average_duration_milliseconds",
                    "Average datastore query duration in milliseconds",
                    ("", query_time),
                ),
                gauge("antmedia_vertx_worker_queue_size", "Vert.x worker queue size", *queues),
                *(gauge(name, description, ("", 0)) for name, description in _ZEROES.items()),
            ]
        )
