"""Markdown for comments and issues, of texts that may be anything, in a room that is limited.

What comes from elsewhere stands in code, inline or fenced, and nowhere else: there it is neither Markdown nor HTML, and
no @name calls anybody.
"""

import difflib
import json
import re
from collections.abc import Callable, Sequence

LIMIT = 60_000
"""In bytes. GitHub takes 65,536 characters."""
LONG = 60
"""Lines that are folded."""
_WITHOUT_LIMIT = 1_000_000_000


def size(text: str) -> int:
    return len(text.encode())


def visible(text: str) -> str:
    """What a reader would not see, or see in another order, is spelled out."""
    return "".join(char if char.isprintable() or char == "\t" else json.dumps(char)[1:-1] for char in text)


def code(text: str) -> str:
    text = visible(text) or " "
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fenced(language: str, lines: Sequence[str], room: int, everything: str) -> str:
    lines = [visible(line) for line in lines]
    fence = "`" * max(3, _longest_run("\n".join(lines)) + 1)
    shown = fitting(lines, room - 2 * len(fence) - 200)
    if len(shown) < len(lines):
        # Whole hunks where there are any.
        hunks = [
            index for index, line in enumerate(lines) if line.startswith("@@") and 0 < index <= len(shown)
        ]
        shown = shown[: hunks[-1]] if hunks and language == "diff" else shown
    missing = cut(len(lines) - len(shown), len(lines), "lines", everything)
    if not shown:
        return missing
    return "\n".join([f"{fence}{language}", *shown, fence]) + "\n" + missing


def fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    for index, line in enumerate(lines):
        room -= size(line) + 1
        if room < 0:
            return lines[:index]
    return lines


def cut(missing: int, of: int, what: str, everything: str) -> str:
    return f"\n**{missing} of {of} {what} are cut here.** {everything} shows them.\n" if missing else ""


def folded(title: str, room: int, content: Callable[[int], str]) -> str:
    head, foot = f"\n<details><summary><b>{title}</b></summary>\n\n", "\n</details>\n"
    return head + content(room - size(head) - size(foot)) + foot


def shared(sections: Sequence[Callable[[int], str]], room: int) -> list[str]:
    """Each section in its fair share of the room: what the short ones leave is for the long ones."""
    texts = [section(_WITHOUT_LIMIT) for section in sections]
    shortest_first = sorted(range(len(texts)), key=lambda index: size(texts[index]))
    for before, index in enumerate(shortest_first):
        share = room // (len(texts) - before)
        if size(texts[index]) > share:
            texts[index] = sections[index](share)
        room -= size(texts[index])
    return texts


def line_diff(old: str, new: str) -> list[str]:
    """Without the names of the two files: they say nothing."""
    return list(difflib.unified_diff(lines_of(old), lines_of(new), lineterm=""))[2:]


def lines_of(text: str) -> list[str]:
    # Unlike splitlines this leaves carriage returns to be seen.
    return text.removesuffix("\n").split("\n") if text else []


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
