"""Formats drift as plain text for a terminal, or as Markdown for an issue."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from operations.drift.findings import CLOUD, STATE, Difference, Drift, Unreachable
from operations.instances import start_command
from operations.markdown import (
    FOLD_ABOVE,
    LIMIT,
    code_block,
    collapsed,
    count_bytes,
    escape_unprintable,
    fit_sections,
    format_omission,
    inline_code,
    take_fitting,
)

_MOST_DIFFERENCES = 500
"""Differences that an issue shows at most."""


def issue_marker(stack: str) -> str:
    """Returns the first line of a stack's issue, which identifies it."""
    return f"<!-- ant-media-cluster drift: {stack} -->"


def format_text(stack: str, drift: Drift) -> str:
    lines: list[str] = []
    for place, differences in groupby(drift.differences, key=lambda difference: difference.place):
        lines += [_capitalize(place), ""]
        for difference in differences:
            lines.append(f"  {difference.name}: {difference.summary}")
            lines += [f"    {escape_unprintable(line)}" for line in difference.lines]
            lines.append("")
    if drift.unreachable:
        lines += ["Not checked", *(f"  {one.place}: {one.reason}" for one in drift.unreachable), ""]
    return "\n".join([*lines, f"{_headline(drift)} {_next_update(stack, drift)}".strip()])


def format_issue(stack: str, drift: Drift) -> str:
    """Returns at most `LIMIT` bytes. Says what is left out, if anything is."""
    full_command = inline_code(f"make drift STACK={stack}")
    head = f"{issue_marker(stack)}\n### {inline_code(stack)}: {_headline(drift)}\n"
    if next_update := _next_update(stack, drift):
        head += f"\n{next_update}\n"
    head += _list_unreachable(drift.unreachable, full_command)
    shown = drift.differences[:_MOST_DIFFERENCES]
    foot = format_omission(
        len(drift.differences) - len(shown), len(drift.differences), "differences", full_command
    )
    sections = [partial(_format_difference, difference, full_command) for difference in shown]
    return head + "".join(fit_sections(sections, LIMIT - count_bytes(head) - count_bytes(foot))) + foot


def _format_difference(difference: Difference, full_command: str, limit: int) -> str:
    place, name, summary = difference.place, difference.name, difference.summary
    content = partial(code_block, "diff", difference.lines)
    if len(difference.lines) > FOLD_ABOVE:
        title = f"{_escape(f'{_capitalize(place)}: {name}')} ({_escape(summary)})"
        return collapsed(title, limit, lambda left: content(left, full_command))
    head = f"\n**{inline_code(place)}**: {inline_code(name)}, {inline_code(summary)}\n\n"
    return head + content(limit - count_bytes(head), full_command)


def _list_unreachable(unreachable: Sequence[Unreachable], full_command: str) -> str:
    if not unreachable:
        return ""
    lines = [f"> - {inline_code(one.place)}: {inline_code(one.reason)}" for one in unreachable]
    shown = take_fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!WARNING]", "> **Not checked:**", *shown])
    return f"\n{text}\n" + format_omission(len(lines) - len(shown), len(lines), "places", full_command)


def _escape(text: str) -> str:
    return escape_unprintable(text).replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")


def _capitalize(place: str) -> str:
    return place[:1].upper() + place[1:] if place == CLOUD else place


def _headline(drift: Drift) -> str:
    resources = sum(difference.place == CLOUD for difference in drift.differences)
    steps = len(drift.differences) - resources
    subjects = [
        *([_count(resources, "resource")] if resources else []),
        *([f"the {'result' if steps == 1 else 'results'} of {_count(steps, 'step')}"] if steps else []),
    ]
    if subjects:
        subject = " and ".join(subjects)
        verb = "differs" if len(drift.differences) == 1 else "differ"
        return f"{subject[:1].upper()}{subject[1:]} {verb} from the state."
    if any(one.place == STATE for one in drift.unreachable):
        return "Nothing was compared."
    if drift.unreachable:
        return "Nothing differs from the state in the places that were checked."
    return "Nothing differs from the state."


def _next_update(stack: str, drift: Drift) -> str:
    """Returns what the next update restores and what it needs before, or an empty string."""
    if drift.marking_error:
        return f"The next update does not restore this, because marking it in the state failed: {inline_code(drift.marking_error)}"
    scripts = len({urn for difference in drift.differences for urn in difference.steps})
    stopped = [difference.stopped_instance for difference in drift.differences if difference.stopped_instance]
    resources = sum(difference.place == CLOUD for difference in drift.differences) - len(stopped)
    actions = [
        *([f"runs {_count(scripts, 'script')} again"] if scripts else []),
        *([f"restores {_count(resources, 'resource')}"] if resources else []),
    ]
    restored = f"`make up STACK={stack}` {' and '.join(actions)}." if actions else ""
    if not stopped:
        return restored
    machines = "a machine is stopped. Start it" if len(stopped) == 1 else "machines are stopped. Start them"
    needed = f"`make up STACK={stack}` changes nothing while {machines} first: `{start_command(stopped)}`"
    return f"{needed}\n{restored}".strip()


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
