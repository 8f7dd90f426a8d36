"""Renders a preview as the Markdown of a pull-request comment."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from operations.markdown import (
    FOLD_ABOVE,
    LIMIT,
    code_block,
    collapsed,
    count_bytes,
    diff_lines,
    fit_sections,
    format_omission,
    inline_code,
    split_lines,
    take_fitting,
)
from operations.preview.changes import Preview
from operations.preview.command_diffs import find_command_diffs, render_command_diffs
from operations.preview.haproxy_cfg import HAProxyCfgChange, find_haproxy_cfg_change
from operations.preview.monthly_cost import OTHER_KINDS, Cost
from operations.preview.resource_tables import (
    format_names,
    format_row,
    render_manual_changes,
    render_resources,
)
from operations.preview.warnings import PreviewWarning, find_warnings
from policy.rules import Violation


@dataclass(frozen=True)
class PolicyResult:
    rules_checked: int
    violations: Sequence[Violation]


def render_comment(stack: str, preview: Preview, policies: PolicyResult, cost: Cost | None = None) -> str:
    """Returns a comment of at most `LIMIT` bytes. Where content is omitted, the comment says so."""
    if preview.protected:
        return _render_refusal(stack, preview)
    if preview.error:
        return render_failure(stack, preview.error)
    full_command = inline_code(f"pulumi preview --diff --show-full-output --stack {stack}")
    head = f"{_marker(stack)}\n### {inline_code(stack)}: {_format_headline(preview, policies)}\n"
    head += "".join(
        f"\n> [!WARNING]\n> {inline_code(warning)}\n"
        for warning in take_fitting(preview.warnings, LIMIT // 8)
    )
    head += _render_warnings(find_warnings(preview.steps, preview.resources_before), full_command)
    head += _render_policies(policies, full_command)
    head += _render_cost(cost) if cost else ""
    haproxy_cfg, command_diffs = find_haproxy_cfg_change(preview.steps), find_command_diffs(preview.steps)
    sections: list[Callable[[int], str]] = [
        lambda limit: render_manual_changes(preview.manual_changes, limit, full_command),
        lambda limit: _render_haproxy_cfg(haproxy_cfg, limit, full_command),
        lambda limit: render_resources(preview.steps, limit, full_command),
        lambda limit: render_command_diffs(command_diffs, limit, full_command),
    ]
    if not preview.steps:
        sections = sections[:1]
    return head + "".join(fit_sections(sections, LIMIT - count_bytes(head)))


def render_failure(stack: str, error: str) -> str:
    head = f"{_marker(stack)}\n### {inline_code(stack)}: the preview failed\n\n"
    return head + _render_error(stack, error, LIMIT - count_bytes(head))


def _render_refusal(stack: str, preview: Preview) -> str:
    head = (
        f"{_marker(stack)}\n### {inline_code(stack)}: **refused**, it would replace or delete protected resources\n\n"
        f"> [!CAUTION]\n> Protected: {format_names(preview.protected)}. A replacement or deletion cannot be undone. Nothing"
        " of this update can be deployed while the protection is on.\n"
        f"> To deploy it anyway, run {inline_code(f'pulumi state unprotect --all --stack {stack}')} and preview again."
        " The next deployment protects the remaining resources again.\n\n"
    )
    return head + _render_error(stack, preview.error, LIMIT - count_bytes(head))


def _render_error(stack: str, error: str, limit: int) -> str:
    return code_block("text", error.splitlines(), limit, inline_code(f"pulumi preview --stack {stack}"))


def _marker(stack: str) -> str:
    """Returns the comment's first line. `operations.forge` finds the comment of the stack by it."""
    return f"<!-- ant-media-cluster preview: {stack} -->"


_VERBS = {
    "create": "create",
    "update": "change",
    "replace": "replace",
    "delete": "delete",
    "import": "import",
}


def _format_headline(preview: Preview, policies: PolicyResult) -> str:
    steps = preview.steps
    counts = Counter(step.op for step in steps if not step.is_command)
    scripts = sum(step.is_command and step.op != "delete" for step in steps)
    parts = [f"{counts[op]} to {verb}" for op, verb in _VERBS.items() if counts[op]]
    if scripts:
        parts.append(f"{scripts} {'script' if scripts == 1 else 'scripts'} to run")
    if not parts:
        parts.append("only scripts are removed from the state" if steps else "nothing changes")
    if preview.manual_changes:
        parts.append(f"{len(preview.manual_changes)} changed by hand")
    if count := len(policies.violations):
        parts.insert(0, f"**{count} policy {'violation' if count == 1 else 'violations'}**")
    return ", ".join(parts)


def _render_warnings(warnings: Sequence[PreviewWarning], full_command: str) -> str:
    if not warnings:
        return ""
    lines = [
        f"> - {format_names(warning.names)}: {warning.message}"
        + (f" (because of {format_names(warning.reasons)})" if warning.reasons else "")
        for warning in warnings
    ]
    shown = take_fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!WARNING]", "> **This interrupts users or cannot be undone:**", *shown])
    return f"\n{text}\n" + format_omission(len(lines) - len(shown), len(lines), "warnings", full_command)


def _render_policies(policies: PolicyResult, full_command: str) -> str:
    summary = f"{policies.rules_checked} rules checked"
    if not policies.violations:
        return f"\n**Policies: {summary}, none violated**\n"
    names: dict[tuple[str, str], list[str]] = {}
    for violation in policies.violations:
        names.setdefault((violation.rule, violation.message), []).append(
            violation.resource or "the whole stack"
        )
    lines = [
        f"> - {format_names(violating)} ({inline_code(rule)}): {inline_code(message)}"
        for (rule, message), violating in names.items()
    ]
    shown = take_fitting(lines, LIMIT // 4)
    text = "\n".join(["> [!CAUTION]", f"> **Policies: {summary}. Do not deploy this:**", *shown])
    return f"\n{text}\n" + format_omission(len(lines) - len(shown), len(lines), "violations", full_command)


def _render_haproxy_cfg(change: HAProxyCfgChange | None, limit: int, full_command: str) -> str:
    if change is None:
        return "\n**haproxy.cfg: unchanged**\n"
    if change.old is None:
        language, lines = "", split_lines(change.new)
        title = f"haproxy.cfg: new, {len(lines)} lines"
    else:
        language, lines = "diff", diff_lines(change.old, change.new)
        signs = Counter(line[:1] for line in lines)
        title = f"haproxy.cfg: {signs['+']} added, {signs['-']} removed"
    if len(lines) > FOLD_ABOVE:
        return collapsed(title, limit, lambda left: code_block(language, lines, left, full_command))
    head = f"\n**{title}**\n\n"
    return head + code_block(language, lines, limit - count_bytes(head), full_command)


def _render_cost(cost: Cost) -> str:
    if cost.before == cost.after:
        title = f"≈ {cost.after:,.2f} {cost.currency} a month, unchanged"
    else:
        title = f"≈ {cost.before:,.2f} → {cost.after:,.2f} {cost.currency} a month ({cost.after - cost.before:+,.2f})"
    note = (
        f". Not included, because {inline_code('prices.json')} has no price: {format_names(cost.without_price)}."
        if cost.without_price
        else ""
    )
    rows = [
        format_row(
            line.kind if line.kind in OTHER_KINDS else inline_code(line.kind),
            str(line.before),
            str(line.after),
            f"{line.cost_before:,.2f}",
            f"{line.cost_after:,.2f}",
        )
        for line in cost.lines
    ]
    head = "| | now | after | a month now | a month after |\n|---|--:|--:|--:|--:|\n"
    table = head + "".join(f"{row}\n" for row in rows)
    return f"\n**Cost: {title}**{note}\n" + collapsed("Cost by kind", LIMIT, lambda _: table)
