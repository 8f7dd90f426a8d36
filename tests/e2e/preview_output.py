"""Parsers of the text that Pulumi prints."""

import re


def list_operations(preview: str, sign: str) -> list[str]:
    """Returns the names of the resources that a preview creates (+), deletes (-), replaces (+-) or updates (~)."""
    found = re.findall(
        rf"(?m)^ *{re.escape(sign)} ?(?=[a-z])\S+: \((?!refresh)\w+\)\n(?: +\[id=.*\n)? +\[urn=.*::(.*)\]$",
        preview,
    )
    return sorted(found)


def list_changed_lines(preview: str, property: str) -> list[str]:
    """Returns the added and removed lines, without indentation, of a property that a preview shows as a line diff."""
    before, _, rest = preview.partition(property)
    indent = len(before) - len(before.rstrip(" "))
    lines: list[str] = []
    for line in rest.splitlines()[1:]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        if line.lstrip()[:1] in ("+", "-"):
            lines.append(" ".join(line.split()))
    return lines


def reports_changes(output: str) -> bool:
    """True if the summary of an `up` counts changed resources."""
    return bool(re.search(r"\d+ (created|updated|deleted|replaced)", output))
