"""Prints a preview as text: `pulumi preview --diff` with every changed line whole.

Passes `--show-full-output`, because the engine cuts lines after 150 characters. Then shortens the unchanged text properties
of resources, such as the command of a new machine, and compressed scripts.
"""

import re
import subprocess
import sys
from argparse import REMAINDER
from collections.abc import Sequence

from cluster.machine_scripts import BEGIN_OF_PACKED
from operations.command_line import new_parser, run_command
from operations.engine import ignore_interrupts

_MAX_LINE_LENGTH = 300
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_UNSIGNED_TEXT = re.compile(r' +(\[\d+\]|[\w./-]+) *: "')
"""Start of a line with the text of one property. Lines with a change have a sign: +, - or ~."""
_PACKED_SCRIPTS = re.compile(rf" +[+-] {BEGIN_OF_PACKED}")
"""A line with compressed scripts. The lines before it name the scripts that change."""


def main() -> int:
    exit_codes = {0: "the preview succeeded", "other": "exit code of COMMAND"}
    parser = new_parser("operations.preview.text", f"{__doc__}", exit_codes)
    parser.usage = "%(prog)s [-h] COMMAND ..."
    parser.add_argument(
        "command", metavar="COMMAND", nargs=REMAINDER, help="preview to run: pulumi preview and its options"
    )
    words: list[str] = parser.parse_args().command
    if not words:
        parser.error("COMMAND is missing: give the command to run, pulumi preview")
    command = [*words, "--diff", "--show-full-output"]
    if sys.stdout.isatty():
        command += ["--color", "always"]
    return print_preview(command)


def print_preview(command: Sequence[str]) -> int:
    """Runs the preview, prints its shortened output, and returns its exit code."""
    # An interrupt reaches the engine too. Its last lines must still be printed.
    ignore_interrupts()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as engine:
        assert engine.stdout
        for line in engine.stdout:
            print(shorten(line.rstrip("\n")), flush=True)
    return engine.returncode


def shorten(line: str) -> str:
    """Cuts a long line if it shows an unchanged property or compressed scripts."""
    plain = _COLOR.sub("", line)
    if len(plain) <= _MAX_LINE_LENGTH:
        return line
    if _PACKED_SCRIPTS.match(plain):
        cut = plain[:_MAX_LINE_LENGTH] + "..."
    elif _UNSIGNED_TEXT.match(plain):
        # A backslash at the end would escape the quotation mark that follows.
        cut = plain[:_MAX_LINE_LENGTH].rstrip("\\") + '..."'
    else:
        return line
    colors = line[: line.index(" ")]
    return f"{colors}{cut}\x1b[0m" if colors else cut


if __name__ == "__main__":
    run_command(main)
