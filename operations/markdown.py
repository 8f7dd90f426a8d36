"""Builds Markdown for comments and issues from untrusted text, within a size limit.

Untrusted text is always placed in inline code or a code block. There it is neither Markdown nor HTML, and an @name
notifies nobody.
"""

import difflib
import json
import re
from collections.abc import Callable, Sequence

LIMIT = 60_000
"""Maximum size of a comment, in bytes. GitHub accepts 65,536 characters."""
FOLD_ABOVE = 60
"""A section with more lines than this is collapsed."""
_NO_LIMIT = 1_000_000_000
NOTE_SIZE = 200
"""Bytes reserved for the note of `format_omission`."""


def count_bytes(text: str) -> int:
    return len(text.encode())


def escape_unprintable(text: str) -> str:
    """Escapes invisible characters and characters that change the text direction."""
    return "".join(char if char.isprintable() or char == "\t" else json.dumps(char)[1:-1] for char in text)


def inline_code(text: str) -> str:
    text = escape_unprintable(text) or " "
    ticks = "`" * (_longest_backtick_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def code_block(language: str, lines: Sequence[str], limit: int, full_command: str) -> str:
    """Returns a fenced code block of at most `limit` bytes. A diff is cut between two hunks.

    `full_command` is the Markdown of the command that prints the omitted lines.
    """
    lines = [escape_unprintable(line) for line in lines]
    fence = "`" * max(3, _longest_backtick_run("\n".join(lines)) + 1)
    shown = take_fitting(lines, limit - 2 * len(fence) - NOTE_SIZE)
    if len(shown) < len(lines):
        hunks = [
            index for index, line in enumerate(lines) if line.startswith("@@") and 0 < index <= len(shown)
        ]
        shown = shown[: hunks[-1]] if hunks and language == "diff" else shown
    note = format_omission(len(lines) - len(shown), len(lines), "lines", full_command)
    if not shown:
        return note
    return "\n".join([f"{fence}{language}", *shown, fence]) + "\n" + note


def take_fitting(lines: Sequence[str], limit: int) -> Sequence[str]:
    """Returns the first lines that fit in `limit` bytes."""
    for index, line in enumerate(lines):
        limit -= count_bytes(line) + 1
        if limit < 0:
            return lines[:index]
    return lines


def format_omission(omitted: int, total: int, noun: str, full_command: str) -> str:
    """Returns a note about omitted lines; empty when none are omitted."""
    return f"\n**{omitted} of {total} {noun} are omitted.** {full_command} shows them.\n" if omitted else ""


def collapsed(title: str, limit: int, content: Callable[[int], str]) -> str:
    """Returns a collapsed section. `content` receives the number of bytes that are left for it."""
    head, foot = f"\n<details><summary><b>{title}</b></summary>\n\n", "\n</details>\n"
    return head + content(limit - count_bytes(head) - count_bytes(foot)) + foot


def fit_sections(sections: Sequence[Callable[[int], str]], limit: int) -> list[str]:
    """Renders each section within an equal share of `limit`. Long sections get the bytes that short ones leave."""
    texts = [section(_NO_LIMIT) for section in sections]
    shortest_first = sorted(range(len(texts)), key=lambda index: count_bytes(texts[index]))
    for done, index in enumerate(shortest_first):
        share = limit // (len(texts) - done)
        if count_bytes(texts[index]) > share:
            texts[index] = sections[index](share)
        limit -= count_bytes(texts[index])
    return texts


def diff_lines(old: str, new: str) -> list[str]:
    """Returns a unified diff without the two file names."""
    return list(difflib.unified_diff(split_lines(old), split_lines(new), lineterm=""))[2:]


def split_lines(text: str) -> list[str]:
    """Splits at newlines only. Unlike `str.splitlines`, it leaves carriage returns in the lines."""
    return text.removesuffix("\n").split("\n") if text else []


def _longest_backtick_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
