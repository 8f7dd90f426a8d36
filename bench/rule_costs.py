"""Measures what each line of haproxy.cfg costs a playlist request: the cost with all lines, less the cost without this one.

usage: unshare --mount .venv/bin/python -m bench.rule_costs [ROUNDS]

Takes a minute for each round. Prints the lines with the highest cost first.
"""

import re
import sys
from collections.abc import Iterator
from statistics import median

from bench.machine import open_machine
from bench.measurements import h2load, measure_cpu
from bench.servers import LoadBalancer, render_ours

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
    r"    (http-(request|response|after-response|reuse)|tcp-request|option http-buffer-request|retry-on|cookie|balance"
    r"|use_backend|log-format)\b"
)


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


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours = render_ours(edges=2)
    variants = {"all": ours, **dict(remove_each_rule(ours))}
    costs: dict[str, list[float]] = {name: [] for name in variants}
    measure = measure_cpu(1000, 13000, h2load("test.m3u8", "--h1"))
    with open_machine() as machine:
        for _ in range(rounds):
            for name, text in variants.items():
                server = LoadBalancer("ours", name, "etc/haproxy/ours.cfg", text, http2=True)
                costs[name].append(measure(machine, server)[0])
    total = median(costs["all"])
    print(f"{total:6.2f} µs with all lines")
    for name, values in sorted(costs.items(), key=lambda entry: median(entry[1])):
        print(f"{total - median(values):6.2f} µs  {name}")


if __name__ == "__main__":
    main()
