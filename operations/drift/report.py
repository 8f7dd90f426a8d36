"""Drift as people read it: on a terminal, or as the Markdown of an issue."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from operations.drift.findings import CLOUD, STATE, Difference, Drift, Unseen
from operations.markdown import LIMIT, LONG, code, cut, fenced, fitting, folded, shared, size, visible

_ENOUGH = 500
"""Differences that an issue may show."""


def marker(stack: str) -> str:
    """The issue's first line."""
    return f"<!-- ant-media-cluster drift: {stack} -->"


def text(stack: str, drift: Drift) -> str:
    lines: list[str] = []
    for where, differences in groupby(drift.differences, key=lambda one: one.where):
        lines += [_place(where), ""]
        for one in differences:
            lines += [f"  {one.name}: {one.what}", *(f"    {visible(line)}" for line in one.lines), ""]
    if drift.unseen:
        lines += ["Not looked at", *(f"  {unseen.where}: {unseen.why}" for unseen in drift.unseen), ""]
    return "\n".join([*lines, f"{_headline(drift)} {_what_to_do(stack, drift)}".strip()])


def issue(stack: str, drift: Drift) -> str:
    """At most `LIMIT` long, and saying so where something is cut."""
    everything = code(f"make drift STACK={stack}")
    head = f"{marker(stack)}\n### {code(stack)}: {_headline(drift)}\n"
    if what := _what_to_do(stack, drift):
        head += f"\n{what}\n"
    head += _not_looked_at(drift.unseen, everything)
    shown = drift.differences[:_ENOUGH]
    foot = cut(len(drift.differences) - len(shown), len(drift.differences), "differences", everything)
    sections = [partial(_section, one, everything) for one in shown]
    return head + "".join(shared(sections, LIMIT - size(head) - size(foot))) + foot


def _section(one: Difference, everything: str, room: int) -> str:
    title = f"{_place(one.where)}: {one.name}"
    content = partial(fenced, "diff", one.lines)
    if len(one.lines) > LONG:
        return folded(
            f"{_escaped(title)} ({_escaped(one.what)})", room, lambda left: content(left, everything)
        )
    head = f"\n**{code(one.where)}**: {code(one.name)}, {code(one.what)}\n\n"
    return head + content(room - size(head), everything)


def _not_looked_at(unseen: Sequence[Unseen], everything: str) -> str:
    if not unseen:
        return ""
    lines = [f"> - {code(one.where)}: {code(one.why)}" for one in unseen]
    shown = fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!WARNING]", "> **Not looked at:**", *shown])
    return f"\n{text}\n" + cut(len(lines) - len(shown), len(lines), "places", everything)


def _escaped(text: str) -> str:
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")


def _place(where: str) -> str:
    return where[:1].upper() + where[1:] if where == CLOUD else where


def _headline(drift: Drift) -> str:
    resources = sum(one.where == CLOUD for one in drift.differences)
    steps = len(drift.differences) - resources
    differing = [
        *([_counted(resources, "resource")] if resources else []),
        *([f"the work of {_counted(steps, 'step')}"] if steps else []),
    ]
    if differing:
        subject = " and ".join(differing)
        verb = "differ" if resources > 1 or len(differing) > 1 else "differs"
        return f"{subject[:1].upper()}{subject[1:]} {verb} from the state."
    if any(unseen.where == STATE for unseen in drift.unseen):
        return "Nothing was compared."
    return (
        "Nothing differs from the state." if not drift.unseen else "Nothing differs as far as could be seen."
    )


def _what_to_do(stack: str, drift: Drift) -> str:
    """What the next update is to do about it."""
    if drift.unmarked:
        return f"No update was told to put it right: {code(drift.unmarked)}"
    scripts = len({urn for one in drift.differences for urn in one.marks})
    resources = sum(one.where == CLOUD and one.healed for one in drift.differences)
    does = [
        *([f"runs {_counted(scripts, 'script')} again"] if scripts else []),
        *([f"puts {_counted(resources, 'resource')} right"] if resources else []),
    ]
    return f"`make up STACK={stack}` {' and '.join(does)}." if does else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
