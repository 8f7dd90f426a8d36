"""Measures what a request costs our load balancer and its rivals, and prints one table.

usage: make bench [BENCH="--only playlist --rounds 1 --json FILE"]

Ends within 20 minutes. docs/performance.md explains the figures.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.figures import FIGURES, RIVALS, Figure
from bench.machine import open_machine
from bench.servers import LOAD_BALANCERS
from tests.project import PROJECT

SECONDS = 19 * 60
"""After which no measurement begins that would end later."""
RESULTS = PROJECT / "bench/results/performance.json"


@dataclass
class Result:
    """What one server reached in one figure."""

    figure: str
    server: str
    values: list[float] = field(default_factory=list[float])
    """One for each round."""
    details: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """What the client counted in each round."""


Results = dict[tuple[str, str], Result]


def measure(figures: list[Figure], rounds: int) -> Results:
    """Measures each figure of each server in turn, and all of them again in the next round, as long as time is left."""
    results = {
        (figure.name, server.name): Result(figure.name, server.name)
        for figure in figures
        for server in LOAD_BALANCERS
        if server.name not in figure.without
    }
    deadline = time.monotonic() + SECONDS
    longest: dict[str, float] = {}
    with open_machine() as machine:
        for number in range(1, rounds + 1):
            for figure in figures:
                started = time.monotonic()
                if number > figure.rounds or started + longest.get(figure.name, 0) > deadline:
                    continue
                for server in LOAD_BALANCERS:
                    if result := results.get((figure.name, server.name)):
                        value, details = figure.measure(machine, server)
                        result.values.append(value)
                        result.details.append(details)
                seconds = time.monotonic() - started
                longest[figure.name] = max(seconds, longest.get(figure.name, 0))
                print(
                    f"round {number} of {min(rounds, figure.rounds)}: {figure.title} ({seconds:.0f} s)",
                    flush=True,
                )
    return results


def format_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_value(result: Result | None) -> str:
    """Returns the median, and the lowest and highest value: `25.4 (24.9-26.1)`."""
    if not result or not result.values:
        return "-"
    text = format_number(median(result.values))
    if len(result.values) > 1:
        text += f" ({format_number(min(result.values))}-{format_number(max(result.values))})"
    return text


def judge(figure: Figure, results: Results) -> Iterator[tuple[str, bool]]:
    """Yields each bar of a figure with its outcome."""
    ours = median(results[figure.name, "ours"].values)
    if figure.at_most is not None:
        yield f"≤ {format_number(figure.at_most)}", ours <= figure.at_most
    if figure.at_least is not None:
        yield f"≥ {format_number(figure.at_least)}", ours >= figure.at_least
    for rival, bar in figure.bars.items():
        ratio = ours / median(results[figure.name, rival].values)
        title = next(server.title for server in LOAD_BALANCERS if server.name == rival)
        yield f"≤ {bar:g} x {title}", ratio <= bar


def format_row(figure: Figure, results: Results) -> list[str]:
    ours = median(results[figure.name, "ours"].values)
    ratios = [
        f"{ours / median(rival.values):.2f}" if (rival := results.get((figure.name, name))) else "-"
        for name in RIVALS
    ]
    bars = [f"{bar} {'✓' if met else '✗'}" for bar, met in judge(figure, results)]
    return [
        f"{figure.title}, {figure.unit}" if figure.unit else figure.title,
        *(format_value(results.get((figure.name, server.name))) for server in LOAD_BALANCERS),
        *ratios,
        ", ".join(bars),
    ]


def is_measured(figure: Figure, results: Results) -> bool:
    ours = results.get((figure.name, "ours"))
    return bool(ours and ours.values)


def format_table(results: Results) -> str:
    """Returns the table as Markdown."""
    rows = [
        [
            "figure",
            *(server.title for server in LOAD_BALANCERS),
            *(f"ours / {server.title}" for server in LOAD_BALANCERS[1:]),
            "bar",
        ]
    ]
    rows += [format_row(figure, results) for figure in FIGURES if is_measured(figure, results)]
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 2), "---"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def read_results(file: Path = RESULTS) -> Results:
    results = (Result(**entry) for entry in json.loads(file.read_text())["results"])
    return {(result.figure, result.server): result for result in results}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measures what a request costs our load balancer and its rivals. Run it with make bench."
    )
    parser.add_argument(
        "--only", default="", help="names of figures, or their beginnings, with commas between them"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS, help="the file for all single values")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit(
            "make bench creates network namespaces and mounts, which needs root: run it with sudo"
        )
    names = tuple(arguments.only.split(","))
    figures = [figure for figure in FIGURES if figure.name.startswith(names)]
    loads = [os.getloadavg()[0]]
    results = measure(figures, arguments.rounds)
    loads.append(os.getloadavg()[0])
    record = {"load_averages": loads, "results": [asdict(result) for result in results.values()]}
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print("\n" + format_table(results))


if __name__ == "__main__":
    main()
