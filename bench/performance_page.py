"""Writes the table and the plots of docs/performance.md from the results of bench.performance.

usage: python -m bench.performance_page
"""

import json
from statistics import median

from bench import rule_costs
from bench.figures import FIGURES
from bench.measurements import SLICE
from bench.page import draw_svg, replace_section
from bench.performance import Results, format_number, format_table, read_results
from bench.servers import LOAD_BALANCERS
from tests.project import PROJECT

PAGE = PROJECT / "docs/performance.md"
COSTS, ENDURANCE = (
    PROJECT / f"docs/pictures/{name}.svg" for name in ("performance-costs", "performance-endurance")
)
COLORS = {"ours": "#4c956c", "guide": "#d1495b", "nginx": "#edae49", "tcp": "#8d96a3"}
TITLES = {server.name: server.title for server in LOAD_BALANCERS}
WIDTH, LABELS, BAR, GAP = 420, 330, 11, 12


def draw_legend(left: float, top: float) -> list[str]:
    return [
        f'<rect x="{left + number * 90}" y="{top}" width="10" height="10" fill="{COLORS[name]}"/>'
        f'<text x="{left + number * 90 + 15}" y="{top + 9}">{title}</text>'
        for number, (name, title) in enumerate(TITLES.items())
    ]


def draw_costs(results: Results) -> str:
    """Draws a group of bars for each figure in µs, as long as the share of the dearest, with all rounds as dots."""
    parts = draw_legend(LABELS, 8)
    top = 34.0
    for figure in (figure for figure in FIGURES if figure.unit == "µs"):
        bars = [(name, result.values) for name in TITLES if (result := results.get((figure.name, name)))]
        if not bars:
            continue
        longest = max(max(values) for _, values in bars)
        parts.append(f'<text x="{LABELS - 8}" y="{top + 9}" text-anchor="end">{figure.title}</text>')
        for name, values in bars:
            length = median(values) / longest * WIDTH
            parts.append(
                f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR - 1}" fill="{COLORS[name]}"/>'
            )
            parts += [
                f'<circle cx="{LABELS + value / longest * WIDTH:.1f}" cy="{top + BAR / 2:.1f}" r="1.5"/>'
                for value in values
            ]
            x = LABELS + max(values) / longest * WIDTH + 6
            parts.append(f'<text x="{x:.1f}" y="{top + 9}">{format_number(median(values))} µs</text>')
            top += BAR
        top += GAP
    return draw_svg(LABELS + WIDTH + 80, top, parts)


def draw_endurance(results: Results) -> str:
    """Draws each server's rate over a minute of full load."""
    left, top, width, height = 60, 34, 560, 200
    series = {
        name: [rate for key, rate in result.details[0].items() if key.startswith("second ")]
        for name in TITLES
        if (result := results.get(("endurance", name)))
    }
    highest = max((rate for rates in series.values() for rate in rates), default=1)
    parts = draw_legend(left, 8)
    for name, rates in series.items():
        points = " ".join(
            f"{left + (number + 0.5) / len(rates) * width:.1f},{top + height * (1 - rate / highest):.1f}"
            for number, rate in enumerate(rates)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[name]}" stroke-width="2"/>')
        for number in range(0, len(rates) + 1, 5):
            x = left + number / len(rates) * width
            parts.append(
                f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{number * SLICE} s</text>'
            )
    for share in (0, 0.5, 1):
        y = top + height * (1 - share)
        parts.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{format_number(highest * share)}/s</text>'
        )
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#ccc"/>')
    return draw_svg(left + width + 20, top + height + 30, dict.fromkeys(parts))


def format_rules(costs: dict[str, int]) -> str:
    """Returns the rules that cost more than 300 instructions as a Markdown table."""
    rows = [
        f"| `{rule[:110].replace('|', chr(92) + '|')}{'…' if len(rule) > 110 else ''}` | {cost:,} |"
        for rule, cost in costs.items()
        if cost > 300
    ]
    return "\n".join(["| rule | instructions per playlist request |", "| --- | ---: |", *rows])


def render_page(page: str, results: Results) -> str:
    page = replace_section(page, "table", format_table(results))
    return replace_section(page, "rules", format_rules(json.loads(rule_costs.RESULTS.read_text())))


def main() -> None:
    results = read_results()
    PAGE.write_text(render_page(PAGE.read_text(), results))
    COSTS.write_text(draw_costs(results))
    ENDURANCE.write_text(draw_endurance(results))


if __name__ == "__main__":
    main()
