"""Tests of the table of `make bench`, and that docs/performance.md shows the results in bench/results."""

import pytest

from bench import performance_page
from bench.figures import FIGURES, Figure
from bench.performance import Result, format_row, judge, read_results
from bench.rule_costs import remove_each_rule
from bench.servers import render_ours


def make_results(**values: list[float]) -> dict[tuple[str, str], Result]:
    return {("playlist", server): Result("playlist", server, rounds) for server, rounds in values.items()}


def make_figure(at_most: float | None = None, at_least: float | None = None, **bars: float) -> Figure:
    return Figure(
        "playlist",
        "playlist",
        "µs",
        lambda machine, server: (0, {}),
        bars,
        at_most=at_most,
        at_least=at_least,
    )


def test_a_bar_compares_the_medians_of_ours_and_of_a_rival():
    results = make_results(ours=[5, 10, 99], guide=[20, 25, 1000])
    figure = make_figure(guide=0.4)
    assert list(judge(figure, results)) == [("≤ 0.4 x guide", True)]
    results["playlist", "ours"].values[1] = 11
    assert list(judge(figure, results)) == [("≤ 0.4 x guide", False)]


@pytest.mark.parametrize(
    ("figure", "met"), [(make_figure(at_most=9), False), (make_figure(at_least=9), True)]
)
def test_a_bar_for_ours_alone_needs_no_rival(figure: Figure, met: bool):
    assert [outcome for _, outcome in judge(figure, make_results(ours=[10]))] == [met]


def test_a_row_shows_medians_spread_and_ratios_and_a_dash_for_a_server_that_cannot():
    row = format_row(make_figure(), make_results(ours=[5, 10, 12], guide=[20], nginx=[40]))
    assert row == ["playlist, µs", "10.0 (5.00-12.0)", "20.0", "40.0", "-", "0.50", "0.25", "-", ""]


def test_each_rule_is_removed_from_its_section_only():
    ours = render_ours(edges=2)
    variants = dict(remove_each_rule(ours))
    for rule, text in variants.items():
        section, line = rule.split(": ", 1)
        assert text.count(f"    {line}\n") == ours.count(f"    {line}\n") - 1
        assert len(text) == len(ours) - len(f"    {line}\n"), section
    assert any(rule.startswith("frontend play from https: use_backend") for rule in variants)


def test_the_page_shows_the_results():
    results = read_results()
    assert {figure.name for figure in FIGURES} == {name for name, _ in results}
    page = performance_page.render_page(performance_page.PAGE.read_text(), results)
    assert page == performance_page.PAGE.read_text()
    assert performance_page.draw_costs(results) == performance_page.COSTS.read_text()
    assert performance_page.draw_endurance(results) == performance_page.ENDURANCE.read_text()
