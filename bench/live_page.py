"""Writes the tables and the plots of docs/availability.md from the results of bench.live.

usage: python -m bench.live_page

Reads bench/results/live-after.json, and live-before.json if it exists.
"""

from bench.live import BIN, Result, format_heading, format_row, read_results
from bench.page import draw_svg, replace_section
from tests.project import PROJECT

RESULTS = PROJECT / "bench/results"
PAGE = PROJECT / "docs/availability.md"
PICTURE = PROJECT / "docs/pictures/availability.svg"
PLOTTED = ("edge: server hangs for 15 s", "edge: machine cut off for 15 s", "load balancer: HAProxy killed")
FROM, TO = -4, 40
"""Seconds of a plot, from the event."""
WIDTH, HEIGHT, LEFT, GAP = 430, 120, 50, 40
GOOD, BAD, LINE = "#4c956c", "#d1495b", "#20639b"


def draw_plot(result: Result | None, left: float, top: float, title: str) -> str:
    """Draws bars of successful and failed requests by the time at which they began, and a line of the slowest of them."""

    def x(seconds: float) -> float:
        return left + (seconds - FROM) / (TO - FROM) * WIDTH

    bars = [bar for bar in (result.series if result else []) if FROM <= bar[0] < TO]
    most = max((good + bad for _, good, bad, _ in bars), default=1)
    bottom = top + HEIGHT
    parts = [f'<text x="{left}" y="{top - 8}">{title}</text>']
    for seconds, good, bad, _ in bars:
        width = BIN / (TO - FROM) * WIDTH
        for count, below, color in ((good, 0, GOOD), (bad, good, BAD)):
            height = count / most * HEIGHT
            y = bottom - below / most * HEIGHT - height
            parts.append(
                f'<rect x="{x(seconds):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'
            )
    # A square root scale: both 0.1 s and 20 s are visible.
    points = " ".join(
        f"{x(seconds + BIN / 2):.1f},{bottom - min(1, (slowest / 30) ** 0.5) * HEIGHT:.1f}"
        for seconds, _, _, slowest in bars
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="{LINE}"/>')
    parts += [
        f'<text x="{left - 6}" y="{bottom - (slowest / 30) ** 0.5 * HEIGHT + 4:.1f}" text-anchor="end" fill="{LINE}">{slowest} s</text>'
        for slowest in (0, 1, 5, 15, 30)
    ]
    parts += [
        f'<text x="{x(seconds):.1f}" y="{bottom + 14}" text-anchor="middle">{seconds} s</text>'
        for seconds in range(0, TO + 1, 10)
    ]
    parts.append(
        f'<path d="M{left} {bottom}h{WIDTH}M{x(0):.1f} {top}v{HEIGHT}" stroke="#888" stroke-dasharray="3 2" fill="none"/>'
    )
    return "\n".join(parts)


def draw(columns: dict[str, dict[str, Result]]) -> str:
    width = len(columns) * (LEFT + WIDTH) + 20
    height = len(PLOTTED) * (HEIGHT + GAP) + 20
    plots = [
        draw_plot(
            results.get(event), LEFT + column * (LEFT + WIDTH), 24 + row * (HEIGHT + GAP), f"{event}, {name}"
        )
        for row, event in enumerate(PLOTTED)
        for column, (name, results) in enumerate(columns.items())
    ]
    return draw_svg(width, height, plots)


def format_table(results: dict[str, Result]) -> str:
    return "\n".join([format_heading(), *map(format_row, results.values())])


def main() -> None:
    columns = {
        name: results
        for name in ("before", "after")
        if (results := read_results(RESULTS / f"live-{name}.json"))
    }
    page = PAGE.read_text()
    for name, results in columns.items():
        page = replace_section(page, name, format_table(results))
    PAGE.write_text(page)
    PICTURE.write_text(draw(columns))


if __name__ == "__main__":
    main()
