"""Measures what viewers and publishers see while machines fail and the cluster changes.

usage: make bench-live [LIVE="--rate 60 --websockets 100 --publishers 2 --events 'edge:' --json FILE"]

Brings a sandbox of its own up, with two origins and two edges, and takes it down at the end. Prints a table as Markdown, and writes the
results, with the series of the plots, to bench/results/live-after.json. Events that are not measured keep theirs. With another load
than the default, it writes to the file of --json only.
Each event has a load of its own, so that one event's failures do not count for the next. Measures for 20 minutes at most:
events for which no time is left are skipped.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.background_threads import BackgroundThreads
from bench.own_sandbox import own_sandbox
from operations.new_stack.creation import generate_ssh_private_key
from sandbox.cloud import addresses
from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import SandboxInternet
from tests.e2e.running_cluster import (
    DOMAIN,
    Cluster,
    get_sandbox_init,
    recording,
    running_process,
    wait_until,
)
from tests.e2e.streams import TEST_STREAM
from tests.project import PROJECT
from tests.sandbox.images.ant_media_archive import write_stand_in_archive

RESULTS = PROJECT / "bench/results/live-after.json"
LIMIT = 20 * 60
BEFORE, AFTER = 4, 6
"""Seconds of load before an event begins and after everything is in service again."""
DETECTION = 4
"""Seconds after which HAProxy has noticed a fault."""
FAULT = 15
"""Seconds that a fault lasts."""
ZIP_PORT = "8000"
BIN = 0.5
"""Seconds of a bar in the plot."""

# Prints each change of a server's state as JSON when its standard input closes.
WATCH_SERVERS = r"""
import csv, json, select, socket, sys, time
seen, changes = {}, []
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    now = time.time()
    try:
        with socket.socket(socket.AF_UNIX) as haproxy:
            haproxy.settimeout(2)
            haproxy.connect("/run/haproxy/admin.sock")
            haproxy.sendall(b"show stat -1 4 -1\n")
            table = b"".join(iter(lambda: haproxy.recv(65536), b"")).decode()
    except OSError:
        continue
    for row in csv.DictReader(table.removeprefix("# ").splitlines()):
        if row["pxname"] in ("origins", "edges") and not row["tracked"]:
            if seen.get(row["svname"]) != row["status"]:
                seen[row["svname"]] = row["status"]
                changes.append([now, row["svname"], row["status"]])
print(json.dumps(changes))
"""


@dataclass
class Result:
    event: str
    requests: int = 0
    failed: int = 0
    missing: int = 0
    """Answers with status 404: the stream ended with its origin or its connection, and its publisher connects again."""
    slowest: float = 0
    sticky_gap: float = 0
    """Longest time that a sticky viewer had no answer with status 200."""
    free_gap: float = 0
    websockets: int = 0
    websockets_dropped: int = 0
    publishers_dropped: int = 0
    ejected: float | None = None
    """Seconds from the event until HAProxy sends nothing more to the node; None if the node stays in service."""
    returned: float | None = None
    """Seconds from the end of the fault until the node is in service again."""
    seconds: float = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    """Number of failures by status or error."""
    series: list[tuple[float, int, int, float]] = field(default_factory=list[tuple[float, int, int, float]])
    """Of each bar: its time from the event, successful and failed requests that began in it, and the slowest of them."""


class Publishers(BackgroundThreads):
    """RTMP publishers. Each connects again when its connection ends, as OBS does, and the end is counted."""

    def __init__(self, cluster: Cluster, streams: list[str]) -> None:
        super().__init__()
        self.dropped = 0
        self._cluster = cluster
        self._threads = [threading.Thread(target=self._publish, args=(stream,)) for stream in streams]

    def _publish(self, stream: str) -> None:
        url = f"rtmp://{DOMAIN}:1935/LiveApp/{stream}"
        command = self._cluster.operator_command(
            "ffmpeg", "-v", "error", *TEST_STREAM, "-rw_timeout", "8000000", url
        )
        while not self._stopped.is_set():
            with subprocess.Popen(
                command,
                cwd=PROJECT,
                env=self._cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                while process.poll() is None and not self._stopped.wait(0.2):
                    pass
                if process.poll() is None:
                    process.terminate()
            if not self._stopped.wait(1):
                self.dropped += 1


@dataclass
class Moments:
    """Unix times of an event."""

    begun: float
    ended: float
    """When the fault was over, or the change complete."""


class Events:
    """What happens to the cluster. Each method returns when it is over, and leaves the cluster as it was."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._account = AwsAccount(cluster, SandboxInternet(get_sandbox_init()))

    def _run_on(self, machine: str, command: str) -> float:
        """Runs a shell command on a machine and returns when it began there."""
        return float(
            self._cluster.run_on(machine, "bash", "-c", f"date +%s.%N; {command}").check().split()[0]
        )

    def kill_server(self, *nodes: str) -> Moments:
        begun = [self._run_on(node, "systemctl kill --signal=KILL antmedia") for node in nodes]
        for node in nodes:
            self._run_on(node, "systemctl start antmedia")
        return Moments(begun[0], begun[0])

    def freeze_server(self, node: str, seconds: float) -> Moments:
        kill = "systemctl kill --signal={} antmedia"
        command = f"{kill.format('STOP')}; sleep {seconds}; {kill.format('CONT')}"
        begun = self._run_on(node, command)
        return Moments(begun, begun + seconds)

    def cut_off(self, node: str) -> Moments:
        """Drops all packets of a machine, as when it loses its power."""
        chains = "\n".join(
            f"chain {hook} {{ type filter hook {hook} priority -500; policy drop;\n}}"
            for hook in ("input", "output")
        )
        script = f"""
            date +%s.%N
            nft "table inet cut {{
                {chains}
            }}"
            sleep {FAULT}
            nft delete table inet cut
            date +%s.%N
        """
        machine = self._cluster.list_machines()[node]
        command = self._cluster.network_namespace_command(machine, "bash", "-ec", script)
        begun, ended = self._cluster.check_output(*command).split()
        return Moments(float(begun), float(ended))

    def reboot(self, machine: str) -> Moments:
        id = self._cluster.list_machines()[machine].id
        begun = time.time()
        self._account.call("ec2", "reboot_instances", InstanceIds=[id])
        wait_until(lambda: self._cluster.run_on(machine, "true").exit_code == 0)
        return Moments(begun, begun)

    def kill_haproxy(self) -> Moments:
        begun = self._run_on("load-balancer", "systemctl kill --signal=KILL haproxy")
        return Moments(begun, begun)

    def stop_database(self) -> Moments:
        begun = self._run_on(
            "database", f"systemctl stop valkey-server; sleep {FAULT}; systemctl start valkey-server"
        )
        return Moments(begun, time.time())

    def change(self, *settings: tuple[str, object], secret: bool = False) -> Moments:
        """Changes settings and updates the stack."""
        for key, value in settings:
            if secret:
                self._cluster.pulumi(
                    "config", "set", "--secret", f"ant-media-cluster:{key}", input=str(value)
                ).check()
            else:
                self._cluster.set_config(key, value)
        return self.update()

    def update(self, *arguments: str) -> Moments:
        begun = time.time()
        self._cluster.update("--suppress-outputs", *arguments)
        return Moments(begun, begun)

    def replace(self, node: str) -> Moments:
        (urn,) = [
            resource["urn"]
            for resource in self._cluster.list_state_resources()
            if resource["urn"].endswith(f"aws:ec2/instance:Instance::{node}")
        ]
        return self.update("--replace", urn)

    def upgrade(self) -> Moments:
        """Installs another version of Ant Media Server on every node, from a zip on the sandbox's internet."""
        image = next(
            resource["outputs"]["ami"]
            for resource in self._cluster.list_state_resources()
            if resource["urn"].endswith("aws:ec2/instance:Instance::edge1")
        )
        with tempfile.TemporaryDirectory() as folder:
            archive = write_stand_in_archive(Path(folder) / "ant-media-server.zip", "3.1.0")
            serve = (sys.executable, "-m", "http.server", ZIP_PORT, "--bind", addresses.OPERATOR)
            with running_process(self._cluster.operator_command(*serve, "--directory", folder)):
                return self.change(
                    ("mediaImage", image),
                    ("amsZip.url", f"http://{addresses.OPERATOR}:{ZIP_PORT}/{archive.name}"),
                    ("amsZip.sha256", hashlib.sha256(archive.read_bytes()).hexdigest()),
                    ("drainSeconds", 10),
                )


@dataclass(frozen=True)
class Event:
    name: str
    run: Callable[[Events], Moments]
    nodes: tuple[str, ...] = ()
    """Servers whose times of leaving and returning are measured."""


EVENTS = [
    Event("edge: server killed", lambda on: on.kill_server("edge1"), ("edge1",)),
    Event(f"edge: server hangs for {FAULT} s", lambda on: on.freeze_server("edge1", FAULT), ("edge1",)),
    Event("edge: server pauses for 2 s", lambda on: on.freeze_server("edge1", 2), ("edge1",)),
    Event(f"edge: machine cut off for {FAULT} s", lambda on: on.cut_off("edge1"), ("edge1",)),
    Event("edge: machine rebooted", lambda on: on.reboot("edge1"), ("edge1",)),
    Event("all edges: servers killed", lambda on: on.kill_server("edge1", "edge2"), ("edge1", "edge2")),
    Event("origin: server killed", lambda on: on.kill_server("origin1"), ("origin1",)),
    Event(f"origin: machine cut off for {FAULT} s", lambda on: on.cut_off("origin1"), ("origin1",)),
    Event("load balancer: HAProxy killed", lambda on: on.kill_haproxy()),
    Event("load balancer: rebooted", lambda on: on.reboot("load-balancer")),
    Event(f"database stopped for {FAULT} s", lambda on: on.stop_database()),
    Event("change: edge added", lambda on: on.change(("edges.count", 3)), ("edge3",)),
    Event("change: edge removed, drained", lambda on: on.change(("edges.count", 2)), ("edge3",)),
    Event("change: HSTS", lambda on: on.change(("hstsMaxAge", 60))),
    Event("change: application removed", lambda on: on.change(("applications", '["LiveApp","live"]'))),
    Event(
        "change: statistics password",
        lambda on: on.change(("statisticsPassword", "another-password-of-the-bench"), secret=True),
    ),
    Event("change: certificate's key type", lambda on: on.change(("acme.keyType", "rsa"))),
    Event("change: edge replaced by hand (not drained)", lambda on: on.replace("edge1"), ("edge1",)),
    Event(
        "change: SSH key",
        lambda on: on.change(("sshPrivateKey", generate_ssh_private_key()), secret=True),
    ),
    Event("change: another version of Ant Media Server, drained", lambda on: on.upgrade(), ("edge1",)),
]


@contextlib.contextmanager
def load(cluster: Cluster, rate: float, websockets: int, streams: list[str]) -> Generator[Callable[[], Any]]:
    viewers = ("-m", "bench.live_viewers", DOMAIN, str(rate), str(websockets), *streams)
    with recording(
        cluster.operator_command("env", f"PYTHONPATH={PROJECT}", sys.executable, *viewers)
    ) as stop:
        yield stop


def is_whole(cluster: Cluster) -> bool:
    """True if every server passes its health check."""
    rows = cluster.get_server_statistics().values()
    checked = [row for row in rows if row["pxname"] in ("origins", "edges") and not row["tracked"]]
    return bool(checked) and all(row["status"] == "UP" and row["check_status"] == "L7OK" for row in checked)


def find_longest_gap(moments: list[float], begun: float, ended: float) -> float:
    inside = [moment for moment in sorted(moments) if moment < ended]
    first = max((moment for moment in inside if moment < begun), default=begun)
    times = [first, *(moment for moment in inside if moment >= begun), ended]
    return max(after - before for before, after in itertools.pairwise(times))


def evaluate(
    event: Event, moments: Moments, report: Any, changes: list[tuple[float, str, str]], ended: float
) -> Result:
    begun = moments.begun
    answers = [answer for answer in report["answers"] if answer[1] + answer[2] >= begun]
    wrong = [answer for answer in answers if answer[3] not in ("200", "404")]
    served: dict[int, list[float]] = {}
    for viewer, started, duration, outcome, _ in report["answers"]:
        times = served.setdefault(viewer, [])
        if outcome == "200":
            times.append(started + duration)
    gaps = {viewer: find_longest_gap(times, begun, ended) for viewer, times in served.items()}
    left: list[float] = []
    back: list[float] = []
    for node in event.nodes:
        own = [(moment, status) for moment, name, status in changes if name == node and moment >= begun]
        gone = next((moment for moment, status in own if not status.startswith("UP")), None)
        if gone:
            left.append(gone - begun)
        returned = [moment for moment, status in own if status == "UP" and moment >= (gone or begun)]
        if returned:
            back.append(max(0.0, returned[-1] - moments.ended))
    if not event.nodes:
        # Nobody is served while the load balancer is away.
        outage = find_longest_gap([moment for times in served.values() for moment in times], begun, ended)
        back = [outage] if outage > 1 else []
    result = Result(
        event=event.name,
        requests=len(answers),
        failed=len(wrong),
        missing=sum(answer[3] == "404" for answer in answers),
        slowest=max((answer[2] for answer in answers), default=0),
        sticky_gap=max((gap for viewer, gap in gaps.items() if viewer % 2), default=0),
        free_gap=max((gap for viewer, gap in gaps.items() if not viewer % 2), default=0),
        websockets=report["websockets"],
        websockets_dropped=sum(report["dropped"].values()),
        ejected=max(left, default=None),
        returned=max(back, default=None),
        seconds=ended - begun,
    )
    for answer in wrong:
        result.reasons[answer[3]] = result.reasons.get(answer[3], 0) + 1
    bins: dict[int, list[tuple[bool, float]]] = {}
    for _, started, duration, outcome, _ in report["answers"]:
        bins.setdefault(int((started - begun) // BIN), []).append((outcome == "200", duration))
    result.series = [
        (
            number * BIN,
            sum(good for good, _ in found),
            sum(not good for good, _ in found),
            round(max(duration for _, duration in found), 2),
        )
        for number, found in sorted(bins.items())
    ]
    return result


def measure(
    cluster: Cluster, event: Event, options: argparse.Namespace, publishers: Publishers, streams: list[str]
) -> Result:
    wait_until(lambda: is_whole(cluster))
    watch = ["sandbox/bin/cloud", "shell", "load-balancer", "python3", "-c", WATCH_SERVERS]
    changes: list[tuple[float, str, str]] = []
    with contextlib.ExitStack() as stack:
        stop_load = stack.enter_context(load(cluster, options.rate, options.websockets, streams))
        stop_watch = stack.enter_context(recording(watch))
        time.sleep(BEFORE)
        dropped = publishers.dropped
        moments = event.run(Events(cluster))
        time.sleep(DETECTION)
        wait_until(lambda: is_whole(cluster))
        time.sleep(AFTER)
        ended = time.time()
        report = stop_load()
        # After a reboot of the load balancer there is no answer.
        with contextlib.suppress(OSError, ValueError):
            changes = stop_watch()
    result = evaluate(event, moments, report, changes, ended)
    result.publishers_dropped = publishers.dropped - dropped
    return result


HEADINGS = (
    "event",
    "requests",
    "failed",
    "404",
    "slowest",
    "longest gap, sticky viewer",
    "longest gap, free viewer",
    "WebSockets dropped",
    "RTMP dropped",
    "out of service after",
    "back after",
)


def format_row(result: Result) -> str:
    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} s"

    cells = (
        result.event,
        str(result.requests),
        str(result.failed),
        str(result.missing),
        *map(seconds, (result.slowest, result.sticky_gap, result.free_gap)),
        f"{result.websockets_dropped} of {result.websockets}",
        str(result.publishers_dropped),
        *map(seconds, (result.ejected, result.returned)),
    )
    return f"| {' | '.join(cells)} |"


def format_heading() -> str:
    return f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"


def read_results(file: Path) -> dict[str, Result]:
    """Returns the results in a file by event; a file that does not exist has none."""
    return (
        {entry["event"]: Result(**entry) for entry in json.loads(file.read_text())} if file.exists() else {}
    )


def save_result(result: Result, file: Path) -> None:
    """Replaces the result of an event in the file of all results."""
    results = {**read_results(file), result.event: result}
    known = [event.name for event in EVENTS]
    file.write_text(json.dumps([asdict(results[name]) for name in known if name in results]))


def run_events(cluster: Cluster, options: argparse.Namespace) -> bool:
    """Measures the events. Returns whether all of them were measured."""
    deadline = time.monotonic() + LIMIT
    streams = [f"bench{number}" for number in range(1, options.publishers + 1)]
    complete = True
    print(format_heading(), flush=True)
    with Publishers(cluster, streams) as publishers:
        time.sleep(8)
        for event in EVENTS:
            if not re.search(options.events, event.name):
                continue
            # Updates take longest.
            if time.monotonic() > deadline - (300 if event.name.startswith("change") else 60):
                print(f"No time is left for: {event.name}", file=sys.stderr)
                complete = False
                continue
            try:
                result = measure(cluster, event, options, publishers, streams)
            except (AssertionError, subprocess.SubprocessError) as error:
                print(f"{event.name} failed: {error}", file=sys.stderr, flush=True)
                complete = False
                continue
            print(format_row(result), flush=True)
            if result.reasons:
                print(f"{event.name}: {result.reasons}", file=sys.stderr, flush=True)
            if options.json:
                save_result(result, options.json)
    return complete


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.live", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--rate", type=float, default=300, help="requests per second (default: 300)")
    parser.add_argument("--websockets", type=int, default=1000, help="open WebSockets (default: 1000)")
    parser.add_argument("--publishers", type=int, default=4, help="RTMP publishers (default: 4)")
    parser.add_argument("--events", default="", help="only events whose names match this regular expression")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    load = ("rate", "websockets", "publishers")
    if all(getattr(options, name) == parser.get_default(name) for name in load):
        options.json = options.json or RESULTS
    with own_sandbox() as cluster:
        complete = run_events(cluster, options)
    sys.exit(not complete)


if __name__ == "__main__":
    main()
