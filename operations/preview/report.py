"""A preview as the Markdown of a pull-request comment."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from operations.markdown import (
    LIMIT,
    LONG,
    code,
    cut,
    fenced,
    fitting,
    folded,
    line_diff,
    lines_of,
    shared,
    size,
)
from operations.preview.changes import (
    ByHand,
    Configuration,
    Notice,
    Preview,
    Step,
    configuration,
    leaves,
    notices,
    spelled,
)
from operations.preview.monthly_cost import OTHERS, Cost
from policy.rules import SECRET, UNKNOWN, Violation

_OPS = {
    "create": "create",
    "update": "change",
    "replace": "**replace**",
    "delete": "**delete**",
    "import": "import",
}
_MARKED = "marked by `make drift`"
_COMMAND_OPS = {
    "create": "run",
    "update": "run again",
    "replace": "run again",
    "delete": "forget",
    "import": "import",
}


def marker(stack: str) -> str:
    """The comment's first line, by which a workflow finds the stack's own comment again."""
    return f"<!-- ant-media-cluster preview: {stack} -->"


@dataclass(frozen=True)
class Policies:
    """What came of the rules in policy/."""

    checked: int
    violations: Sequence[Violation]


def comment(stack: str, preview: Preview, policies: Policies, cost: Cost | None = None) -> str:
    """At most `LIMIT` long, and saying so where something is cut."""
    if preview.protected:
        return _refusal(stack, preview)
    if preview.error:
        return failure(stack, preview.error)
    everything = code(f"pulumi preview --diff --show-full-output --stack {stack}")
    head = f"{marker(stack)}\n### {code(stack)}: {_headline(preview, policies)}\n"
    head += _warnings(notices(preview.steps), everything)
    head += _violations(policies, everything)
    head += _cost(cost) if cost else ""
    haproxy_cfg, commands = _haproxy_cfg_lines(configuration(preview.steps)), _command_changes(preview.steps)
    sections: list[Callable[[int], str]] = [
        lambda room: _by_hand(preview.by_hand, room, everything),
        lambda room: _haproxy_cfg(*haproxy_cfg, room, everything),
        lambda room: _resources(preview.steps, room, everything),
        lambda room: _commands(commands, room, everything),
    ]
    if not preview.steps:
        sections = sections[:1]
    return head + "".join(shared(sections, LIMIT - size(head)))


def failure(stack: str, error: str) -> str:
    head = f"{marker(stack)}\n### {code(stack)}: the preview failed\n\n"
    return head + fenced(
        "text", error.splitlines(), LIMIT - size(head), code(f"pulumi preview --stack {stack}")
    )


def _refusal(stack: str, preview: Preview) -> str:
    head = (
        f"{marker(stack)}\n### {code(stack)}: **refused**, it would replace or delete what is protected\n\n"
        f"> [!CAUTION]\n> {_listed(preview.protected)}: with it would go what cannot be had back. Nothing of this update can"
        " be done as long as it is protected.\n"
        f"> If it is to go: {code(f'pulumi state unprotect --all --stack {stack}')}, then preview this again."
        " The deployment after that protects what is left.\n\n"
    )
    return head + fenced(
        "text", preview.error.splitlines(), LIMIT - size(head), code(f"pulumi preview --stack {stack}")
    )


# The headline


def _headline(preview: Preview, policies: Policies) -> str:
    steps = preview.steps
    counts = Counter(step.op for step in steps if not step.is_command)
    scripts = sum(step.is_command and step.op != "delete" for step in steps)
    verbs = [(op, name.strip("*")) for op, name in _OPS.items()]
    said = [f"{counts[op]} to {verb}" for op, verb in verbs if counts[op]]
    if scripts:
        said.append(f"{scripts} {'script' if scripts == 1 else 'scripts'} to run")
    if not said:
        said.append("machines are forgotten" if steps else "nothing changes")
    if preview.by_hand:
        said.append(f"{len(preview.by_hand)} changed by hand")
    if found := len(policies.violations):
        said.insert(0, f"**{found} policy {'violation' if found == 1 else 'violations'}**")
    return ", ".join(said)


def _warnings(found: Sequence[Notice], everything: str) -> str:
    if not found:
        return ""
    lines = [
        f"> - {_listed(notice.names)}: {notice.what}"
        + (f" (because of {_listed(notice.because)})" if notice.because else "")
        for notice in found
    ]
    shown = fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!WARNING]", "> **What people will notice, and what goes for good:**", *shown])
    return f"\n{text}\n" + cut(len(lines) - len(shown), len(lines), "warnings", everything)


def _violations(policies: Policies, everything: str) -> str:
    found, rules = policies.violations, f"{policies.checked} rules checked"
    if not found:
        return f"\n**Policies: {rules}, none violated**\n"
    names: dict[tuple[str, str], list[str]] = {}
    for violation in found:
        names.setdefault((violation.rule, violation.what), []).append(violation.resource or "the whole stack")
    lines = [f"> - {_listed(of)} ({code(rule)}): {code(what)}" for (rule, what), of in names.items()]
    shown = fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!CAUTION]", f"> **Policies: {rules}. This must not be deployed:**", *shown])
    return f"\n{text}\n" + cut(len(lines) - len(shown), len(lines), "violations", everything)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(code(name) for name in names[:20]) + more


# haproxy.cfg


def _haproxy_cfg_lines(change: Configuration | None) -> tuple[str, str, list[str]]:
    """What is shown of it: what that is, its language, its lines."""
    if change is None:
        return "stays as it is", "", []
    if change.old is None:
        lines = lines_of(change.new)
        return f"new, {len(lines)} lines", "", lines
    diff = line_diff(change.old, change.new)
    signs = Counter(line[:1] for line in diff)
    return f"{signs['+']} added, {signs['-']} removed", "diff", diff


def _haproxy_cfg(what: str, language: str, lines: Sequence[str], room: int, everything: str) -> str:
    if len(lines) > LONG:
        return folded(f"haproxy.cfg: {what}", room, lambda left: fenced(language, lines, left, everything))
    title = f"\n**haproxy.cfg: {what}**\n"
    return f"{title}\n{fenced(language, lines, room - size(title), everything)}" if lines else title


# Cost


def _cost(cost: Cost) -> str:
    if cost.before == cost.after:
        title = f"≈ {cost.after:,.2f} {cost.currency} a month, as before"
    else:
        title = f"≈ {cost.before:,.2f} → {cost.after:,.2f} {cost.currency} a month ({cost.after - cost.before:+,.2f})"
    missing = (
        f". Not in it, for want of a price in {code('prices.json')}: {_listed(cost.without_price)}."
        if cost.without_price
        else ""
    )
    rows = [
        _cells(
            line.kind if line.kind in OTHERS else code(line.kind),
            str(line.before),
            str(line.after),
            f"{line.cost_before:,.2f}",
            f"{line.cost_after:,.2f}",
        )
        for line in cost.lines
    ]
    head = "| | now | then | a month now | a month then |\n|---|--:|--:|--:|--:|\n"
    table = head + "".join(f"{row}\n" for row in rows)
    return f"\n**Cost: {title}**{missing}\n" + folded("Cost by kind", LIMIT, lambda _: table)


# Resources


def _by_hand(found: Sequence[ByHand], room: int, everything: str) -> str:
    if not found:
        return ""
    head = "| | resource | kind | in the cloud | what the update does |\n|---|---|---|---|---|\n"
    rows = [
        _cells(
            "**gone**" if change.op == "delete" else "changed",
            code(change.name),
            spelled(change.type),
            _what_changes(change),
            by_hand.then,
        )
        for by_hand in found
        for change in [by_hand.change]
    ]
    return _table(f"Changed by hand in the cloud: {len(rows)}", head, rows, room, everything)


def _resources(steps: Sequence[Step], room: int, everything: str) -> str:
    head = "| | resource | kind | component | what changes |\n|---|---|---|---|---|\n"
    return _table(f"Resources: {len(steps)}", head, [_row(step) for step in steps], room, everything)


def _table(title: str, head: str, rows: Sequence[str], room: int, everything: str) -> str:
    def table(left: int) -> str:
        shown = fitting(rows, left - size(head) - 200)
        return (
            head
            + "".join(f"{row}\n" for row in shown)
            + cut(len(rows) - len(shown), len(rows), "rows", everything)
        )

    return folded(title, room, table) if len(rows) > 20 else f"\n**{title}**\n\n{table(room - 40)}"


def _row(step: Step) -> str:
    if step.is_command:
        op, what = _COMMAND_OPS[step.op], _why_it_runs(step)
    else:
        op, what = _OPS[step.op], _what_changes(step)
    return _cells(op, code(step.name), spelled(step.type), step.component, what)


def _cells(*cells: str) -> str:
    # A pipe ends a cell in code, too.
    return "| " + " | ".join(cell.replace("|", r"\u007c") for cell in cells) + " |"


def _why_it_runs(step: Step) -> str:
    if step.op in ("create", "delete"):
        return code(step.script[0]) if step.script[0] else ""
    if step.changed:
        return _listed(step.changed)
    return _MARKED if step.marked else "what it runs on is replaced"


def _what_changes(step: Step) -> str:
    if step.op in ("create", "import"):
        return _short(
            f"{code(path)} {_value(value)}" for path, value in leaves("", step.new) if _tells(path, value)
        )
    if step.op == "delete":
        return ""
    if not step.changed:
        return _MARKED if step.marked else "what it depends on is replaced"
    return _short(
        text for name in step.changed for text in _differences(name, step.old.get(name), step.new.get(name))
    )


def _tells(path: str, value: object) -> bool:
    return value not in (SECRET, UNKNOWN) and not isinstance(value, bool) and "tags" not in path.split(".")


def _differences(path: str, old: object, new: object) -> Iterator[str]:
    before, after = dict(leaves(path, old)), dict(leaves(path, new))
    places = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    for place in places:
        old, new = before.get(place), after.get(place)
        # Of two long texts what sets them apart.
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(str(old), str(new), strict=False))))
        yield f"{code(place)} {_value(old, same)} → {_value(new, same)}"
    if not places:
        yield f"{code(path)} {code(SECRET)} is another" if SECRET in before.values() else code(path)


def _value(value: object, same: int = 0) -> str:
    if value is None:
        return "none"
    if isinstance(value, str) and len(value) > 80:
        start = max(0, same - 20)
        value = ("…" if start else "") + value[start : start + 78] + ("…" if start + 78 < len(value) else "")
    return code(json.dumps(value, ensure_ascii=False))


def _short(texts: Iterable[str]) -> str:
    every = list(texts)
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


# Commands

Changes: TypeAlias = dict[tuple[str, tuple[str, ...]], list[str]]
"""Of which property, as a diff, and all commands of which it is the difference."""


def _commands(changes: Changes, room: int, everything: str) -> str:
    if not changes:
        return ""

    def diffs(left: int) -> str:
        text = "Of a new command only the line that runs it.\n"
        for index, ((what, diff), names) in enumerate(changes.items()):
            title = f"\n{_listed(names)}: {what}\n\n"
            room = left - size(text) - size(title) - 200
            # Less is not worth a title.
            if room < 1000:
                return text + cut(len(changes) - index, len(changes), "commands", everything)
            text += title + fenced("diff", diff, room, everything)
        return text

    return folded(f"Commands: {len(changes)} that differ", room, diffs)


def _command_changes(steps: Iterable[Step]) -> Changes:
    changes: Changes = {}
    for step in steps:
        if not step.is_command or step.op == "delete":
            continue
        # haproxy.cfg has been shown.
        properties = {"create", "environment", "stdin"} - (
            {"stdin"} if step.op == "create" or step.script[0] == "apply-haproxy-config.sh" else set()
        )
        for name in sorted(properties):
            if diff := line_diff(_text(step.old.get(name)), _text(step.new.get(name))):
                what = "the command" if name == "create" else code(name)
                changes.setdefault((what, tuple(diff)), []).append(step.name)
    return changes


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return "\n".join(f"{path}={leaf}" for path, leaf in leaves("", value))
