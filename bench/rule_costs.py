"""Counts the instructions that each rule of haproxy.cfg costs a playlist request: those with all rules, less those without this one.

usage: unshare --mount .venv/bin/python -m bench.rule_costs [FILE]

Runs HAProxy under Valgrind, which it installs, so the counts do not depend on what else the machine does. They leave out the
kernel. Writes bench/results/rule-costs.json and prints it, the dearest rules first. Takes 15 minutes.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.machine import Machine, open_machine, wait_until
from bench.measurements import NGINX_NODE, h2load
from bench.servers import LOAD_BALANCERS, render_ours
from sandbox.cloud.process_tree import MS_BIND, MS_REC, mount
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results/rule-costs.json"

# The sections that a viewer's request passes.
SECTIONS = (
    "defaults tcp",
    "defaults http",
    "defaults https",
    "defaults nodes",
    "frontend play",
    "backend edges",
)
RULES = (
    r"    (http-(request|response|after-response|reuse)|tcp-request|option (http-buffer-request|forwardfor)|retry-on|cookie"
    r"|balance|use_backend)\b"
)
VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-file=/var/log/valgrind"]
FEW, MANY = 100, 600
TOLERANCE = 50_000
"""Instructions by which the two lowest counts may differ: 100 for each of the MANY - FEW requests."""
MOST_COUNTS = 8


def remove_each_rule(text: str) -> Iterator[tuple[str, str]]:
    """Yields each rule of these sections, and the configuration without it."""
    lines = text.splitlines(keepends=True)
    section = ""
    for number, line in enumerate(lines):
        if re.match(r"\w", line):
            section = line.strip()
        known = section.startswith(tuple(f"{name} from" for name in SECTIONS)) or section in SECTIONS
        if known and re.match(RULES, line):
            yield f"{section}: {line.strip()}", "".join(lines[:number] + lines[number + 1 :])


def install_valgrind(machine: Machine) -> None:
    mount("/dev", str(machine.root / "dev"), flags=MS_BIND | MS_REC)
    mount("tmpfs", str(machine.root / "var/lib/apt/lists"), "tmpfs")
    shutil.copy("/etc/resolv.conf", machine.root / "etc/resolv.conf")
    machine.run("apt-get", "-q", "update")
    machine.run("apt-get", "-qy", "install", "--no-install-recommends", "valgrind")


def prepare_for_valgrind(text: str) -> str:
    """Returns the configuration with limits that Valgrind leaves room for, and with health checks that do not count."""
    text = re.sub(r"\n    (chroot|user|group|ulimit-n) .*", "", text)
    text = re.sub(r"\n    maxconn .*", "\n    maxconn 1000", text)
    return text.replace("inter 600ms fastinter 100ms", "inter 60s fastinter 60s")


def count_instructions(machine: Machine, text: str, requests: int) -> int:
    machine.write("etc/haproxy/counted.cfg", prepare_for_valgrind(text))
    files = ["-f", "/etc/haproxy/counted.cfg", "-f", "/etc/haproxy/credentials.cfg"]
    log = machine.root / "var/log/valgrind"
    with machine.serve([*VALGRIND, "haproxy", "-db", *files], NGINX_NODE) as process:
        if h2load("test.m3u8", "--h1")(machine, requests)["requests"] != requests:
            raise SystemExit(f"HAProxy did not answer {requests} requests")
        process.popen.terminate()
        wait_until(lambda: "Collected" in log.read_text(), "Valgrind")
    return int(log.read_text().split("Collected :")[1].split()[0])


def find_lowest_count(machine: Machine, text: str, requests: int) -> int:
    # Some runs have a few million instructions more in OpenSSL, whatever the rules are.
    counts = sorted(count_instructions(machine, text, requests) for _ in range(2))
    while counts[1] - counts[0] > TOLERANCE and len(counts) < MOST_COUNTS:
        counts = sorted([*counts, count_instructions(machine, text, requests)])
    return counts[0]


def count_for_a_request(machine: Machine, text: str) -> int:
    few, many = (find_lowest_count(machine, text, requests) for requests in (FEW, MANY))
    return (many - few) // (MANY - FEW)


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    ours = render_ours(edges=2)
    tcp = next(server.text for server in LOAD_BALANCERS if server.name == "tcp")
    with open_machine() as machine:
        install_valgrind(machine)
        total = count_for_a_request(machine, ours)
        costs = {"all": total, "TCP mode": count_for_a_request(machine, tcp)}
        print(costs, flush=True)
        for rule, text in remove_each_rule(ours):
            costs[rule] = total - count_for_a_request(machine, text)
            print(f"{costs[rule]:7} {rule}", flush=True)
    costs = dict(sorted(costs.items(), key=lambda entry: -entry[1]))
    file.write_text(json.dumps(costs, indent=1) + "\n")


if __name__ == "__main__":
    main()
