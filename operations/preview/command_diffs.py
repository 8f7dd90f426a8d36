"""Renders the changed inputs of remote commands as diffs."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from cluster.machine_scripts import unpack_scripts
from operations.markdown import NOTE_SIZE, code_block, collapsed, count_bytes, diff_lines, format_omission
from operations.preview.changes import Step
from operations.preview.resource_tables import format_names
from operations.resources import flatten

CommandDiffs: TypeAlias = Mapping[tuple[str, tuple[str, ...]], list[str]]
"""Names of the commands by the property that changes and its diff: commands with the same diff share one entry."""

_MIN_DIFF_SIZE = 1000
"""In bytes. With less space, the remaining diffs are omitted."""


def find_command_diffs(steps: Iterable[Step]) -> CommandDiffs:
    """Returns the diffs of all commands.

    Omits the standard input of new commands, and haproxy.cfg, which has its own section.
    """
    diffs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for step in steps:
        if not step.is_command or step.op == "delete":
            continue
        properties = ["create", "environment"]
        if step.op != "create" and step.script[0] != "apply-haproxy-config.sh":
            properties.append("stdin")
        for name in properties:
            if diff := diff_lines(_format_input(step.old.get(name)), _format_input(step.new.get(name))):
                label = "the command" if name == "create" else f"`{name}`"
                diffs.setdefault((label, tuple(diff)), []).append(step.name)
    return diffs


def render_command_diffs(diffs: CommandDiffs, limit: int, full_command: str) -> str:
    if not diffs:
        return ""

    def render_diffs(left: int) -> str:
        text = "The standard input of new commands is not shown.\n"
        for index, ((label, diff), names) in enumerate(diffs.items()):
            title = f"\n{format_names(names)}: {label}\n\n"
            space = left - count_bytes(text) - count_bytes(title) - NOTE_SIZE
            if space < _MIN_DIFF_SIZE:
                return text + format_omission(len(diffs) - index, len(diffs), "diffs", full_command)
            text += title + code_block("diff", diff, space, full_command)
        return text

    return collapsed(f"Command diffs: {len(diffs)}", limit, render_diffs)


def _format_input(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return unpack_scripts(value)
        case _:
            return "\n".join(f"{path}={leaf}" for path, leaf in flatten("", value))
