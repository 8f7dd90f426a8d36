"""The lines of the table: what is measured, how, and what ours may be at most."""

from dataclasses import dataclass, field

from bench.measurements import (
    WEBSOCKET_NODE,
    Measure,
    connect,
    exchange_messages,
    h2load,
    measure_cost_after_a_minute,
    measure_cpu,
    measure_latency,
    measure_memory,
    measure_rate_after_a_minute,
    measure_reload,
    measure_rendering,
    measure_viewers,
)
from bench.servers import allow_tls13, use_own_key

RIVALS = ("guide", "nginx", "tcp")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    title: str
    unit: str
    measure: Measure
    bars: dict[str, float] = field(default_factory=dict[str, float])
    """The most that ours may be, as a multiple of each rival's value."""
    at_most: float | None = None
    at_least: float | None = None
    """Bars for ours alone."""
    rounds: int = 99
    """The most rounds that measure it."""
    without: tuple[str, ...] = ()
    """Servers that cannot do this."""


def new_connection(kind: str, name: str, title: str, *options: str) -> Figure:
    work = connect(kind == "resumed", *options)
    return Figure(
        f"{kind}-{name}",
        f"new connection, {kind} handshake, one playlist, {title}",
        "µs",
        measure_cpu(80, 880, work, prepare=allow_tls13 if options else use_own_key),
        {"guide": 0.7, "nginx": 1.0} if options else {"guide": 0.7},
    )


FIGURES = (
    Figure(
        "playlist",
        "playlist 1.3 kB, kept connections, HTTP/1.1",
        "µs",
        measure_cpu(2000, 22000, h2load("test.m3u8", "--h1")),
        {"guide": 0.4, "nginx": 0.2, "tcp": 1.5},
    ),
    Figure(
        "playlist-h2",
        "playlist 1.3 kB, kept connections, HTTP/2",
        "µs",
        measure_cpu(2000, 22000, h2load("test.m3u8", "-m4")),
        {"guide": 0.4},
        without=("nginx", "tcp"),
    ),
    Figure(
        "segment-400k",
        "segment 400 kB, kept connections",
        "µs",
        measure_cpu(200, 2200, h2load("test400k.ts", "--h1")),
        {"tcp": 1.1},
    ),
    Figure(
        "segment-2m",
        "segment 2 MB, kept connections",
        "µs",
        measure_cpu(64, 564, h2load("test2m.ts", "--h1")),
        {"tcp": 1.1},
    ),
    *(
        new_connection(kind, *variant)
        for variant in (
            ("tls13", "TLS 1.3, X25519", "--version", "TLSv1_3", "--group", "X25519"),
            ("tls12", "TLS 1.2, P-256", "--version", "TLSv1_2", "--group", "prime256v1"),
            ("defaults", "defaults of each"),
        )
        for kind in ("full", "resumed")
    ),
    Figure(
        "message",
        "WebSocket message of 24 bytes",
        "µs",
        measure_cpu(2000, 42000, exchange_messages, node=WEBSOCKET_NODE),
    ),
    Figure(
        "p99",
        "99th percentile of a playlist's latency at 70 % load",
        "ms",
        measure_latency,
        {"guide": 1.0, "nginx": 1.0, "tcp": 1.0},
    ),
    Figure("memory", "memory of 1,000 idle WebSockets", "MiB", measure_memory, rounds=1),
    Figure(
        "viewers",
        "WebSockets that the default machine holds",
        "",
        measure_viewers,
        at_least=20_000,
        rounds=1,
        without=("nginx", "tcp"),
    ),
    Figure(
        "endurance",
        "rate after 60 s of full load, to that of the first 3 s",
        "",
        measure_rate_after_a_minute,
        at_least=0.9,
        rounds=1,
        without=("tcp",),
    ),
    Figure(
        "playlist-after",
        "playlist 1.3 kB, kept connections, HTTP/1.1, after 60 s of full load",
        "µs",
        measure_cost_after_a_minute,
        {"guide": 0.4, "nginx": 0.2},
        rounds=1,
        without=("tcp",),
    ),
    Figure(
        "render-1000",
        "haproxy.cfg for 1,000 nodes",
        "ms",
        measure_rendering(1000),
        at_most=50,
        without=RIVALS,
    ),
    Figure(
        "render-10000",
        "haproxy.cfg for 10,000 nodes",
        "ms",
        measure_rendering(10_000),
        at_most=500,
        without=RIVALS,
    ),
    Figure("reload-1000", "reload with 1,000 nodes", "ms", measure_reload, at_most=1000, without=RIVALS),
)
