"""Measures one server once: what a request costs it, how late it answers, how much memory its connections take."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import median, quantiles

from bench.machine import CLIENTS, OPEN_FILES, PORT, Machine, wait_for_port, wait_until
from bench.servers import DEFAULT_MEMORY_MIB, LoadBalancer, render_ours
from cluster.haproxy_config import RESERVED_FILES, calculate_connection_limits
from tests.integration.haproxy.haproxy_process import BALANCER

NGINX_NODE = ["nginx", "-c", "/bench/node.conf", "-g", "daemon off;"]
WEBSOCKET_NODE = ["python3", "/bench/websocket_node.py", "5080"]
STREAMS = f"https://{BALANCER}:{PORT}/LiveApp/streams"
CONNECTIONS = 64
THREADS = 8
"""Threads of client.py. The first handshake of each cannot resume."""
LOAD = 0.7
"""The share of the processor that requests take while latency is measured."""
SLICE, SLICES = 3, 20
"""Seconds and number of the parts of the test of endurance."""

Details = dict[str, float]
Work = Callable[[Machine, int], Details]
"""Sends a number of requests and returns what it counted."""
Measure = Callable[[Machine, LoadBalancer], tuple[float, Details]]


def measure_cpu(
    few: int,
    many: int,
    work: Work,
    node: list[str] = NGINX_NODE,
    prepare: Callable[[LoadBalancer], LoadBalancer] = lambda server: server,
) -> Measure:
    """Returns a measurement of the server's processor time per request, in µs.

    Works twice and takes the difference, so that connections, first handshakes and the health checks cost nothing.
    """

    def measure(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
        with machine.serve(prepare(server).install(machine), node) as process:
            start = process.read_cpu_seconds()
            first = work(machine, few)
            between, started = process.read_cpu_seconds(), time.monotonic()
            counted = work(machine, many)
            end, seconds = process.read_cpu_seconds(), time.monotonic() - started
        requests = counted["requests"] - first["requests"]
        if counted["requests"] != many or requests != many - few:
            raise SystemExit(f"{server.title} answered {counted['requests']:.0f} of {many} requests")
        cost = ((end - between) - (between - start)) / requests * 1e6
        return cost, {
            **counted,
            "requests_per_second": many / seconds,
            "server_load": (end - between) / seconds,
        }

    return measure


def h2load(path: str, *options: str) -> Work:
    """Requests a file over kept connections."""

    def work(machine: Machine, requests: int) -> Details:
        command = ["h2load", "-n", str(requests), "-c", str(min(CONNECTIONS, requests)), *options]
        output = machine.run(*command, f"{STREAMS}/{path}")
        return {"requests": float(find(r"status codes: (\d+) 2xx", output))}

    return work


def find(pattern: str, text: str) -> str:
    if not (found := re.search(pattern, text)):
        raise SystemExit(f"the client's output has no {pattern!r}:\n{text}")
    return found[1]


def connect(resume: bool, *options: str) -> Work:
    """Opens new connections with one request each, and makes sure that TLS resumes all or none."""

    def work(machine: Machine, connections: int) -> Details:
        counted = machine.run_client(
            "connections",
            BALANCER,
            str(connections),
            f"--threads={THREADS}",
            *options,
            *(["--resume"] if resume else []),
        )
        expected = connections - THREADS if resume else 0
        if counted["resumed"] != expected:
            raise SystemExit(f"{counted['resumed']} of {connections} handshakes resumed, expected {expected}")
        return {key: float(count) for key, count in counted.items()}

    return work


def exchange_messages(machine: Machine, messages: int) -> Details:
    """Sends messages on 100 WebSockets. The node sends each back, so a round trip is two messages."""
    counted = machine.run_client("messages", BALANCER, "100", "--messages", str(messages // 200))
    return {"requests": counted["requests"] * 2.0}


def measure_latency(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns the 99th percentile of a playlist's latency in ms, with the server's processor at 70 %."""
    with machine.serve(server.install(machine), NGINX_NODE) as process:
        work = h2load("test.m3u8", "--h1")
        work(machine, 1000)
        before = process.read_cpu_seconds()
        work(machine, 6000)
        rate = LOAD * 6000 / (process.read_cpu_seconds() - before)
        per_connection = rate / CONNECTIONS
        requests = min(20000, int(rate * 3))
        (machine.root / "bench/latencies").unlink(missing_ok=True)
        before, started = process.read_cpu_seconds(), time.monotonic()
        h2load("test.m3u8", "--h1", f"--rps={per_connection:.2f}", "--log-file=/bench/latencies")(
            machine, requests
        )
        seconds = time.monotonic() - started
        load = (process.read_cpu_seconds() - before) / seconds
    rows = [line.split("\t") for line in (machine.root / "bench/latencies").read_text().splitlines()]
    latencies = [int(row[2]) / 1000 for row in rows]
    return quantiles(latencies, n=100)[98], {
        "requests_per_second": requests / seconds,
        "server_load": load,
        "p50": median(latencies),
        "p99.9": quantiles(latencies, n=1000)[998],
    }


def measure_memory(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns the server's memory for 1,000 idle WebSockets, in MiB."""
    return hold_websockets(machine, server, 1900)


def hold_websockets(machine: Machine, server: LoadBalancer, count: int) -> tuple[float, Details]:
    with machine.serve(server.install(machine), WEBSOCKET_NODE) as process:
        machine.run_client("messages", BALANCER, "20", "--messages", "1")
        before = process.read_memory_kib()
        arguments = ["hold", BALANCER, str(count), "--sources", *CLIENTS]
        client = machine.spawn(
            "python3", "/bench/client.py", *arguments, cpus=machine.other_cpus, interactive=True
        )
        try:
            assert client.popen.stdout
            if client.popen.stdout.readline() != "open\n":
                raise SystemExit(f"{server.title} did not open {count} WebSockets")
            used = process.read_memory_kib() - before
            answered = json.loads(client.popen.communicate()[0])["requests"]
        finally:
            client.stop()
    return used / 1024 / count * 1000, {"requests": float(answered)}


def measure_viewers(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns how many WebSockets the default machine holds: its limit, or as many as fit in half of its memory.

    Computed from the memory of ten times the guide's limit, or of as many as this machine's limit of files allows.
    """
    limit = 2000 if server.name == "guide" else calculate_connection_limits(DEFAULT_MEMORY_MIB).maxconn
    tested = min(limit - 100, 20_000, (OPEN_FILES - RESERVED_FILES) // 2 - 100)
    memory, details = hold_websockets(machine, server, tested)
    return min(limit, DEFAULT_MEMORY_MIB / 2 / memory * 1000), {"memory": memory, **details}


@cache
def load_for_a_minute(machine: Machine, server: LoadBalancer) -> tuple[list[float], list[float], int]:
    """Returns the requests per second and the cost of a request in µs, for each slice of a minute, and the errors."""
    rates: list[float] = []
    costs: list[float] = []
    errors = 0
    with machine.serve(server.install(machine), NGINX_NODE) as process:
        for _ in range(SLICES):
            before = process.read_cpu_seconds()
            output = machine.run(
                "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SLICE}s", "--timeout=10s", f"{STREAMS}/test.m3u8"
            )
            requests = int(find(r"(\d+) requests in", output))
            costs.append((process.read_cpu_seconds() - before) / max(1, requests) * 1e6)
            rates.append(float(find(r"Requests/sec: +([0-9.]+)", output)))
            errors += int((re.findall(r"Non-2xx or 3xx responses: (\d+)", output) or ["0"])[0])
    return rates, costs, errors


def measure_rate_after_a_minute(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns the rate of the last 15 of 60 seconds of full load, as a share of that of the first 3 seconds."""
    rates, _, errors = load_for_a_minute(machine, server)
    series = {f"second {number * SLICE}": rate for number, rate in enumerate(rates)}
    return median(rates[-5:]) / rates[0], {"errors": errors, **series}


def measure_cost_after_a_minute(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns the processor time per request in the last 15 of 60 seconds of full load, in µs."""
    _, costs, _ = load_for_a_minute(machine, server)
    return median(costs[-5:]), {f"second {number * SLICE}": cost for number, cost in enumerate(costs)}


def measure_rendering(nodes: int) -> Measure:
    """Returns the time that it takes to render haproxy.cfg for a number of nodes, in ms."""

    def measure(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
        render_ours(edges=4)
        started = time.process_time()
        text = render_ours(edges=nodes - 2)
        return (time.process_time() - started) * 1000, {"bytes": len(text)}

    return measure


def measure_reload(machine: Machine, server: LoadBalancer) -> tuple[float, Details]:
    """Returns how long HAProxy takes to reload a configuration with 1,000 nodes, in ms: from the command to its success."""
    large = replace(server, text=render_ours(edges=998))
    command = ["haproxy", "-Ws", "-p", "/run/haproxy.pid", "-S", "/run/haproxy-master.sock"]
    with machine.serve([*command, *large.install(machine)[2:]], NGINX_NODE) as process:
        # The master answers when it has executed itself again, after its worker does.
        wait_until(
            lambda: " worker " in machine.ask("run/haproxy-master.sock", "show proc"), "HAProxy's master"
        )
        before, started = process.read_cpu_seconds(), time.monotonic()
        answer = machine.ask("run/haproxy-master.sock", "reload")
        seconds = time.monotonic() - started
        used = process.read_cpu_seconds() - before
        if not answer.startswith("Success=1"):
            raise SystemExit(f"HAProxy did not reload: {answer}")
        wait_for_port(BALANCER, PORT)
    return seconds * 1000, {"cpu_ms": used * 1000}
