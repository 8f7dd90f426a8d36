"""Measures updates of a sandbox: the first `up` beside its longest chain by hand, one more edge, and a changed configuration.

usage: make bench-update

Brings a sandbox of its own up and takes it down at the end. It takes five minutes on an idle machine with two processors.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bench.own_sandbox import own_sandbox
from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.e2e.running_cluster import DOMAIN, LOOPBACK, Cluster, wait_until
from tests.e2e.small_stack import EXCLUDE_SCRIPTS
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results/update.json"
ROUNDS = 5
# Runs on the load balancer. With the real-time scheduler the script and HAProxy do not wait for a busy machine's other processes.
APPLY = r"""
for process in $(pgrep -x haproxy) $$ 1; do chrt --fifo --all-tasks --pid 10 "$process"; done
printf '%s\n# %s\n' "$(cat /etc/haproxy/haproxy.cfg)" "$EPOCHREALTIME" >/tmp/haproxy.cfg
exec 5>/tmp/trace
bash -c 'PS4="+ \$EPOCHREALTIME \${FUNCNAME[0]:-main} "; BASH_XTRACEFD=5; set -x; source "$0"' SCRIPT </tmp/haproxy.cfg >&2
grep -a '^+' /tmp/trace
""".replace("SCRIPT", f"{INSTALLED_SCRIPTS}/apply-haproxy-config.sh")
PARTS = (
    ("validate", r"validate_new_config haproxy -c"),
    ("rehearse", r"main rehearse_new_config|rehearse_new_config local folder"),
    ("swap", r"main (\[\[ -e|mv .*staged)"),
    ("reload", r"main \S*reload-haproxy"),
    ("verify", r"main verify_ports|verify_ports local address"),
    ("record", r"main mv \S*haproxy.cfg.new"),
)
"""Each part of apply-haproxy-config.sh, and the first line of its trace."""


class Steps:
    """The begin and end of every operation of a run of Pulumi, as its event log reports them."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.log = self._folder / "events"
        self.log.touch()
        self.options = ("--event-log", str(self.log))

    @contextlib.contextmanager
    def recorded(self) -> Generator[None]:
        stop = threading.Event()
        reader = threading.Thread(target=self._read, args=(stop,))
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()

    def _read(self, stop: threading.Event) -> None:
        line = ""
        with self.log.open() as lines:
            while not stop.is_set():
                line += lines.readline()
                if line.endswith("\n"):
                    self._note(json.loads(line))
                    line = ""
                else:
                    time.sleep(0.01)

    def _note(self, event: dict[str, Any]) -> None:
        for kind, times in (("resourcePreEvent", self.begun), ("resOutputsEvent", self.ended)):
            if metadata := event.get(kind, {}).get("metadata"):
                # The creation of a replaced resource comes after its deletion.
                times[metadata["urn"]] = time.monotonic()

    def seconds(self, urn: str) -> float:
        return self.ended[urn] - self.begun[urn]


def find_longest_chain(resources: list[dict[str, Any]], steps: Steps) -> list[str]:
    """Returns the URNs of the steps that depend on each other and take longest together."""
    best: dict[str, tuple[float, list[str]]] = {}
    # A state lists every resource after those that it depends on.
    for resource in resources:
        urn = resource["urn"]
        before = [
            best[other]
            for other in [*resource.get("dependencies", []), resource.get("parent")]
            if other in best
        ]
        seconds, chain = max(before, default=(0.0, list[str]()))
        measured = urn in steps.begun and urn in steps.ended and resource.get("custom")
        best[urn] = (seconds + steps.seconds(urn), [*chain, urn]) if measured else (seconds, chain)
    return max(best.values())[1]


def find_needed_scripts(resources: list[dict[str, Any]], chain: list[str]) -> list[str]:
    """Returns the remote commands of a chain and those that they depend on, in an order in which they can run."""
    before: dict[str, list[str]] = {
        resource["urn"]: [*resource.get("dependencies", []), resource.get("parent", "")]
        for resource in resources
    }
    needed, found = [*chain], set[str]()
    while needed:
        if (urn := needed.pop()) in before and urn not in found:
            found.add(urn)
            needed += before[urn]
    return [urn for urn in before if urn in found and "command:remote" in urn]


def read_resources(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns the state's resources, with their secrets."""
    state = json.loads(cluster.pulumi("stack", "export", "--show-secrets").check())
    return state["deployment"]["resources"]


def find_address(resources: list[dict[str, Any]]) -> str:
    """Returns the load balancer's public address."""
    return next(
        str(found["outputs"]["publicIp"]) for found in resources if found["type"] == "aws:ec2/eip:Eip"
    )


def name_of(urn: str) -> str:
    return urn.rpartition("::")[2]


class HandRun:
    """Runs remote commands of a state over SSH, one after the other, as somebody at a shell would.

    The machines may be those of a later state: `now`.
    """

    def __init__(self, cluster: Cluster, resources: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
        self._cluster = cluster
        self._address = find_address(now)
        inputs = json.dumps({resource["urn"]: resource.get("inputs", {}) for resource in resources})
        # AWS gives new addresses, and new ids at the end of ARNs.
        new = {resource["urn"]: resource.get("outputs", {}) for resource in now}
        for resource in resources:
            for key in ("publicIp", "arn"):
                former, value = (
                    outputs.get(key)
                    for outputs in (resource.get("outputs", {}), new.get(resource["urn"], {}))
                )
                if former and value:
                    inputs = inputs.replace(former, value)
        self._inputs = json.loads(inputs)
        connection = next(inputs["connection"] for inputs in self._inputs.values() if "connection" in inputs)
        self._key = Path(tempfile.mkdtemp(prefix="bench-")) / "key"
        self._key.touch(0o600)
        # OpenSSH before 9.6 reads no Ed25519 key in PKCS #8.
        key = load_pem_private_key(str(reveal(reveal(connection)["privateKey"])).encode(), password=None)
        self._key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))

    def run(self, urn: str) -> None:
        inputs = self._inputs[urn]
        connection = reveal(inputs["connection"])
        host = str(reveal(connection["host"]))
        options = (
            f"-i {self._key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        )
        jump = (
            ""
            if host == self._address
            else f"-o ProxyCommand={shlex.quote(f'ssh {options} -W %h:%p pulumi@{self._address}')}"
        )
        command = str(reveal(inputs["create"]))
        login = ["ssh", *shlex.split(f"{options} {jump}"), f"pulumi@{host}"]
        stdin = str(reveal(inputs.get("stdin", "")))
        # Until the machine has booted.
        wait_until(
            lambda: self._cluster.run(*self._cluster.operator_command(*login, "true")).exit_code != 255,
            interval=0.1,
        )
        self._cluster.run(*self._cluster.operator_command(*login, command), input=stdin).check()


def reveal(value: Any) -> Any:
    """Returns a value of an exported state, in clear text if it was secret."""
    if isinstance(value, dict) and "plaintext" in value:
        return json.loads(cast(dict[str, str], value)["plaintext"])
    return cast(Any, value)


def measure_first_up(cluster: Cluster) -> dict[str, Any]:
    """Measures an update that creates everything, and then the steps of its longest chain by hand on new machines."""
    cluster.set_config("edges.count", 2)
    cluster.pulumi("destroy", "--yes", "--skip-preview").check()
    steps, load = Steps(), os.getloadavg()[0]
    started = time.monotonic()
    with steps.recorded():
        cluster.update(*steps.options)
    seconds = time.monotonic() - started
    resources = read_resources(cluster)
    chain = find_longest_chain(resources, steps)
    # What AWS does, and the start of the engine, by hand takes as long as in the update.
    by_hand = sum(steps.seconds(urn) for urn in chain if "command:" not in urn)
    local = sum(steps.seconds(urn) for urn in chain if "command:local" in urn)
    cluster.pulumi("destroy", "--yes", "--skip-preview").check()
    cluster.update(*EXCLUDE_SCRIPTS)
    hand = HandRun(cluster, resources, read_resources(cluster))
    parts: list[dict[str, Any]] = []
    # What the chain's steps need beside each other counts only in the chain: somebody else does it meanwhile.
    for urn in find_needed_scripts(resources, chain):
        begun = time.monotonic()
        hand.run(urn)
        took = time.monotonic() - begun
        if urn in chain:
            update = steps.seconds(urn)
            # The first script waits for the machine. It has booted by now, so the wait of the update counts.
            parts.append(
                {"step": name_of(urn), "update": update, "hand": took if parts else max(took, update)}
            )
    by_hand += sum(part["hand"] for part in parts) + local
    return {
        "load": load, "seconds": seconds, "chain_seconds": sum(map(steps.seconds, chain)), "by_hand_seconds": by_hand,
        "chain": [{"step": name_of(urn), "seconds": steps.seconds(urn)} for urn in chain], "by_hand": parts,
    }  # fmt: skip


def request_until_served_by(host: str, stop: threading.Event, served: list[float]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while not stop.is_set() and not served:
        connection = http.client.HTTPSConnection(LOOPBACK, 5443, timeout=10, context=context)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/LiveApp/", headers={"Host": f"{DOMAIN}:5443"})
            if connection.getresponse().headers["X-Stand-In-Node"] == host:
                served.append(time.monotonic())
        connection.close()
        time.sleep(0.05)


def measure_edge(cluster: Cluster) -> dict[str, Any]:
    """Measures one more edge, from the command to the first request that it serves."""
    cluster.set_config("edges.count", 3)
    plan = json.loads(cluster.pulumi("preview", "--json").check())
    address = next(
        step["newState"]["inputs"]["privateIp"]
        for step in plan["steps"]
        if step["urn"].endswith("::Instance::edge3") or step["urn"].endswith("Instance::edge3")
    )
    steps, stop, served = Steps(), threading.Event(), list[float]()
    requests = threading.Thread(
        target=request_until_served_by, args=(f"ip-{address.replace('.', '-')}", stop, served)
    )
    load = os.getloadavg()[0]
    requests.start()
    started = time.monotonic()
    try:
        with steps.recorded():
            cluster.update(*steps.options)
        complete = time.monotonic() - started
        # A new server gets its full share of new clients after 30 s.
        requests.join(60)
    finally:
        stop.set()
    by_name = {name_of(urn): urn for urn in steps.ended if "$ant-media:" not in urn.rpartition("$")[2]}
    parts: list[dict[str, Any]] = []
    previous = started
    for title, name in (
        ("engine, program, refresh, instance", "edge3"),
        ("boot, cloud-init, scripts", "edge3-scripts"),
        ("Ant Media Server set up and ready", "edge3-ant-media"),
        ("in service, nodes that go", "service-removed-servers"),
    ):
        end = steps.ended[by_name[name]]
        parts.append({"part": title, "seconds": end - previous})
        previous = end
    if served:
        parts.append({"part": "configuration, up to the first request", "seconds": served[0] - previous})
    return {
        "load": load,
        "seconds": served[0] - started if served else None,
        "complete": complete,
        "parts": parts,
    }


def measure_apply(cluster: Cluster) -> list[dict[str, float]]:
    """Measures the parts of apply-haproxy-config.sh."""
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        trace = cluster.run_on("load-balancer", "bash", "-c", APPLY).check().splitlines()
        lines = [
            (float(found[1]), found[2]) for line in trace if (found := re.match(r"\++ (\d+\.\d+) (.*)", line))
        ]
        first, last = lines[0][0], lines[-1][0]
        moments = [
            (name, next((moment for moment, text in lines if re.match(pattern, text)), last))
            for name, pattern in PARTS
        ]
        ends = [moment for _, moment in moments[1:]] + [last]
        parts = {"begin": moments[0][1] - first}
        parts |= {name: end - begin for (name, begin), end in zip(moments, ends, strict=True)}
        rounds.append({**parts, "total": last - first})
    return rounds


def measure_repeated_installation(cluster: Cluster) -> dict[str, float]:
    """Measures the scripts that install packages, when they run again, with their SSH logins."""
    resources = read_resources(cluster)
    hand = HandRun(cluster, resources, resources)
    found: dict[str, float] = {}
    for machine, step in (("load-balancer", "load-balancer-haproxy"), ("database", "database-valkey")):
        (urn,) = (resource["urn"] for resource in resources if name_of(resource["urn"]) == step)
        begun = time.monotonic()
        hand.run(urn)
        found[machine] = time.monotonic() - begun
    return found


MEASUREMENTS: dict[str, Callable[[Cluster], Any]] = {
    "apply": measure_apply,
    "installations repeated": measure_repeated_installation,
    "edge": measure_edge,
    "first up": measure_first_up,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.update", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS)
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the results")
    options = parser.parse_args()
    # Pulumi has the option --event-log only with this variable.
    Cluster.environment["PULUMI_DEBUG_COMMANDS"] = "true"
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    with own_sandbox() as cluster:
        for name in options.only:
            results[name] = MEASUREMENTS[name](cluster)
            options.json.write_text(json.dumps(results, indent=1) + "\n")
            print(name, json.dumps(results[name]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
