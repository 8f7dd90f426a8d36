"""Writes the tables and the plot of "Preview and up" in docs/performance.md from the results of the benchmarks.

usage: python -m bench.update_page

Reads preview.json, growth.json and update.json in bench/results. Results of an earlier commit are in files that end in -before.json.
"""

import json
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench.page import draw_svg, has_section, replace_section
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results"
PAGE = PROJECT / "docs/performance.md"
PICTURE = PROJECT / "docs/pictures/performance-growth.svg"
WIDTH, HEIGHT, LEFT, TOP, GAP = 200, 130, 50, 30, 40
AFTER, BEFORE = "#4c956c", "#8d96a3"


def read(name: str) -> Any:
    """Returns results, `None` if they were not measured."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def format_table(rows: Sequence[Sequence[str]]) -> str:
    heading, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([heading, "|" + "---|" * len(rows[0]), *others])


def merge(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(row[name] for row in rows) for name in rows[0]}


def show_preview(results: Any) -> str:
    previews = {name: merge(rows) for name, rows in results["previews"].items()}
    parts = [part for part in previews["empty program"] if part not in ("wall", "load average")]
    rows = [["CPU seconds", *previews]]
    rows += [[part, *(f"{preview[part]:.2f}" for preview in previews.values())] for part in parts]
    rows += [["wall clock, s", *(f"{preview['wall']:.0f}" for preview in previews.values())]]
    sdks, program = (median(results["imports"][name]) for name in ("the SDKs", "our program"))
    return (
        f"{format_table(rows)}\n\nImports alone, in a new interpreter: the SDKs {sdks:.2f} s, the program with them "
        f"{program:.2f} s ({program / sdks:.2f} times as much)."
    )


def show_growth(results: Any) -> str:
    rows = [["edges", "resources", "state, kB", "preview", "up", "destroy", "of these the engine"]]
    for size in results:
        totals = [sum(size[run]["cpu"].values()) for run in ("preview", "up", "destroy")]
        engine = [f"{size[run]['cpu']['engine']:.1f}" for run in ("preview", "up", "destroy")]
        rows.append(
            [
                str(size["edges"]),
                str(size["resources"]),
                str(size["state_bytes"] // 1000),
                *(f"{total:.1f}" for total in totals),
                " / ".join(engine),
            ]
        )
    return format_table(rows)


def show_apply(results: Any) -> str:
    rounds = results["apply"]
    rows = [["part of apply-haproxy-config.sh", "seconds"]]
    return format_table(
        rows + [[part, f"{median(entry[part] for entry in rounds):.2f}"] for part in rounds[0]]
    )


def show_edge(results: Any) -> str:
    edge = results["edge"]
    rows = [
        ["one more edge", "seconds"],
        *([part["part"], f"{part['seconds']:.1f}"] for part in edge["parts"]),
    ]
    return format_table([*rows, ["the update ends after", f"{edge['complete']:.1f}"]])


def show_chain(results: Any) -> str:
    first = results["first up"]
    rows = [["longest chain", "in the update, s", "by hand over SSH, s"]]
    hand = {part["step"]: part["hand"] for part in first["by_hand"]}
    rows += [
        [step["step"], f"{step['seconds']:.1f}", f"{hand.get(step['step'], step['seconds']):.1f}"]
        for step in first["chain"]
    ]
    rows.append(["the chain", f"{first['chain_seconds']:.1f}", f"{first['by_hand_seconds']:.1f}"])
    return format_table([*rows, ["the whole `pulumi up`", f"{first['seconds']:.1f}", ""]])


def draw_plot(
    title: str, series: Iterable[tuple[str, list[tuple[float, float]]]], left: float, most: float
) -> list[str]:
    """Draws lines over the number of edges, from 0 to 100."""
    drawn = [(color, points) for color, points in series if points]
    highest = max((y for _, points in drawn for _, y in points), default=1)
    bottom = TOP + HEIGHT
    parts = [
        f'<text x="{left}" y="{TOP - 10}">{title}</text>',
        f'<path d="M{left} {TOP}V{bottom}H{left + WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{left - 4}" y="{TOP + 8}" text-anchor="end">{highest:.0f}</text>',
        f'<text x="{left + WIDTH}" y="{bottom + 14}" text-anchor="end">{most:.0f} edges</text>',
    ]
    for color, points in drawn:
        line = " ".join(
            f"{left + x / most * WIDTH:.1f},{bottom - y / highest * HEIGHT:.1f}" for x, y in points
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="3" fill="{color}"/>'
            for point in line.split()
        ]
    return parts


def draw(after: Any, before: Any) -> str:
    most = max(size["edges"] for size in after)

    def points(results: Any, figure: str) -> list[tuple[float, float]]:
        if figure == "state":
            return [(size["edges"], size["state_bytes"] / 1000) for size in results or ()]
        return [(size["edges"], sum(size[figure]["cpu"].values())) for size in results or ()]

    parts: list[str] = []
    for number, (title, figure) in enumerate(
        (
            ("preview, CPU s", "preview"),
            ("up, CPU s", "up"),
            ("destroy, CPU s", "destroy"),
            ("state, kB", "state"),
        )
    ):
        left = LEFT + number * (WIDTH + LEFT + 10)
        series = ((BEFORE, points(before, figure)), (AFTER, points(after, figure)))
        parts += draw_plot(title, series, left, most)
    return draw_svg(4 * (WIDTH + LEFT + 10) + 20, TOP + HEIGHT + GAP, parts)


TABLES = (
    ("preview", "preview", show_preview),
    ("preview before", "preview-before", show_preview),
    ("growth", "growth", show_growth),
    ("apply", "update", show_apply),
    ("edge", "update", show_edge),
    ("chain", "update", show_chain),
)


def main() -> None:
    page = PAGE.read_text()
    for name, file, show in TABLES:
        results = read(file)
        if results is None or not has_section(page, name):
            continue
        try:
            table = show(results)
        except KeyError:  # not measured
            continue
        page = replace_section(page, name, table)
    PAGE.write_text(page)
    if growth := read("growth"):
        PICTURE.write_text(draw(growth, read("growth-before")))


if __name__ == "__main__":
    main()
