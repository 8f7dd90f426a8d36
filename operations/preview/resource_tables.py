"""Renders the changed resources of a preview as Markdown tables."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import cast

from operations.markdown import NOTE_SIZE, collapsed, count_bytes, format_omission, inline_code, take_fitting
from operations.preview.changes import ManualChange, Step
from operations.resources import find_changed_paths, flatten, format_type
from policy.resource import SECRET, UNKNOWN

_OPS = {
    "create": "create",
    "update": "change",
    "replace": "**replace**",
    "delete": "**delete**",
    "import": "import",
}
_COMMAND_OPS = {
    "create": "run",
    "update": "run again",
    "replace": "run again",
    "delete": "remove",
    "import": "import",
}
_MAX_NAMES = 20
_MAX_PROPERTIES = 8
_MAX_OPEN_ROWS = 20
"""A table with more rows than this is collapsed."""
_MAX_VALUE_LENGTH = 80


def render_resources(steps: Sequence[Step], limit: int, full_command: str) -> str:
    head = "| | resource | kind | component | what changes |\n|---|---|---|---|---|\n"
    rows = [_format_step(step) for step in steps]
    return _render_table(f"Resources: {len(steps)}", head, rows, limit, full_command)


def render_manual_changes(changes: Sequence[ManualChange], limit: int, full_command: str) -> str:
    if not changes:
        return ""
    head = "| | resource | kind | in the cloud | what the update does |\n|---|---|---|---|---|\n"
    rows = [
        format_row(
            "**deleted**" if step.op == "delete" else "changed",
            inline_code(step.name),
            format_type(step.type),
            _describe_change(step),
            manual.outcome,
        )
        for manual in changes
        for step in [manual.change]
    ]
    return _render_table(f"Changed by hand in the cloud: {len(rows)}", head, rows, limit, full_command)


def format_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(inline_code(name) for name in names[:_MAX_NAMES]) + more


def format_row(*cells: str) -> str:
    # A pipe ends a cell in inline code, too.
    return "| " + " | ".join(cell.replace("|", r"\u007c") for cell in cells) + " |"


def _render_table(title: str, head: str, rows: Sequence[str], limit: int, full_command: str) -> str:
    def render_rows(left: int) -> str:
        shown = take_fitting(rows, left - count_bytes(head) - NOTE_SIZE)
        return (
            head
            + "".join(f"{row}\n" for row in shown)
            + format_omission(len(rows) - len(shown), len(rows), "rows", full_command)
        )

    if len(rows) > _MAX_OPEN_ROWS:
        return collapsed(title, limit, render_rows)
    return f"\n**{title}**\n\n{render_rows(limit - 40)}"


def _format_step(step: Step) -> str:
    if step.is_command:
        op, change = _COMMAND_OPS[step.op], _describe_command(step)
    else:
        op, change = _OPS[step.op], _describe_change(step)
    return format_row(op, inline_code(step.name), format_type(step.type), step.component, change)


def _describe_command(step: Step) -> str:
    """Returns the script of a new or removed command, and for all others why the script runs again."""
    if step.op in ("create", "delete"):
        return inline_code(step.script[0]) if step.script[0] else ""
    return format_names(step.changed) or _describe_unchanged(step)


def _describe_change(step: Step) -> str:
    """Returns the inputs of a new resource, and for all others the old and new values of what changes."""
    if step.op in ("create", "import"):
        return _join(
            f"{inline_code(path)} {_format_value(value)}"
            for path, value in flatten("", step.new)
            if value not in (SECRET, UNKNOWN)
            and not isinstance(value, bool)
            and not {"tags", "tagsAll"} & {*path.split(".")}
        )
    if step.op == "delete":
        return ""
    if not step.changed:
        return _describe_unchanged(step)
    return _join(
        text
        for name, old, new in _find_changed_properties(step)
        for text in _describe_property(name, old, new)
    )


def _find_changed_properties(step: Step) -> Iterator[tuple[str, object, object]]:
    """Yields the changed properties with their old and new values, without the tags that `tagsAll` shows too.

    Version 7 of the AWS provider has two properties: `tags` as the program gives them, and `tagsAll` with the default
    tags. Version 6 has `tags` alone, which include the default tags.
    """
    for name in step.changed:
        old, new = step.old.get(name), step.new.get(name)
        if name == "tags" and "tagsAll" in step.changed:
            all_old, all_new = (
                dict(flatten("", step.old.get("tagsAll"))),
                dict(flatten("", step.new.get("tagsAll"))),
            )
            shown = find_changed_paths(all_old, all_new)
            old, new = _without(old, shown), _without(new, shown)
            if old == new:
                continue
        yield name, old, new


def _without(tags: object, names: Sequence[str]) -> object:
    if not isinstance(tags, dict):
        return tags
    return {name: value for name, value in cast(dict[str, object], tags).items() if name not in names}


def _describe_unchanged(step: Step) -> str:
    """Returns why a resource is replaced although none of its properties changes."""
    return "marked by `make drift`" if step.tainted else "a resource that it depends on is replaced"


def _describe_property(path: str, old: object, new: object) -> Iterator[str]:
    before, after = dict(flatten(path, old)), dict(flatten(path, new))
    changed = find_changed_paths(before, after)
    for place in changed:
        old, new = before.get(place), after.get(place)
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(str(old), str(new), strict=False))))
        yield f"{inline_code(place)} {_format_value(old, same)} → {_format_value(new, same)}"
    if not changed:
        yield (
            f"{inline_code(path)} {inline_code(SECRET)} changes"
            if SECRET in before.values()
            else inline_code(path)
        )


def _format_value(value: object, same: int = 0) -> str:
    """Formats a value. Of a long text, shows the part after the first `same` characters, which do not change."""
    if value is None:
        return "none"
    if isinstance(value, str) and len(value) > _MAX_VALUE_LENGTH:
        start = max(0, same - 20)
        value = ("…" if start else "") + value[start : start + 78] + ("…" if start + 78 < len(value) else "")
    return inline_code(json.dumps(value, ensure_ascii=False))


def _join(texts: Iterable[str]) -> str:
    all_texts = list(texts)
    more = f" and {len(all_texts) - _MAX_PROPERTIES} more" if len(all_texts) > _MAX_PROPERTIES else ""
    return ", ".join(all_texts[:_MAX_PROPERTIES]) + more
