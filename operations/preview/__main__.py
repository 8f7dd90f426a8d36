"""Prints what a preview would change as Markdown for a comment on a pull request."""

import os
import signal
import subprocess
import sys
import traceback
from argparse import REMAINDER
from collections.abc import Sequence
from pathlib import Path

from operations.command_line import new_parser, run_command
from operations.engine import ROOT
from operations.markdown import inline_code
from operations.preview.changes import parse_preview
from operations.preview.monthly_cost import Prices, monthly_cost, read_prices
from operations.preview.report import PolicyResult, render_comment, render_failure
from policy.rules import RULES, find_violations, read_config

_DESCRIPTION = """\
Prints what a preview would change as Markdown for a comment on a pull request.

It prints a comment in every case, also when the preview fails or is interrupted: otherwise the comment of an earlier
push would stay on the pull request. It exits with the exit code of COMMAND where that is not 0.

environment variables:
  PRICES  price list for the monthly cost; default: prices.json, where it exists
  COMMIT  commit that is previewed; its first 8 digits are in the last line
"""
_INTERRUPTED = 130
_INTERRUPT_TIMEOUT = 60
"""Seconds until an interrupted engine is killed."""


def main() -> int:
    exit_codes = {
        0: "the preview succeeded, or no COMMAND was given",
        1: "a policy is violated, or no comment could be rendered",
        _INTERRUPTED: "the preview was interrupted",
    }
    parser = new_parser("operations.preview", _DESCRIPTION, exit_codes)
    parser.usage = "%(prog)s [-h] STACK [COMMAND ...]"
    parser.add_argument("stack", metavar="STACK", help="stack that is previewed")
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs=REMAINDER,
        help="preview to run: pulumi preview --json --show-sames; without it, the comment reports a job that failed before",
    )
    arguments = parser.parse_args()
    stack: str = arguments.stack
    try:
        comment, exit_code = _preview(stack, arguments.command)
    except KeyboardInterrupt:
        comment = render_failure(stack, "the preview was interrupted or took too long")
        exit_code = _INTERRUPTED
    except FileNotFoundError as error:
        sys.stderr.write(f"{error.filename} is not on PATH: install it first\n")
        comment, exit_code = render_failure(stack, f"{error.filename} is not on PATH"), 1
    except Exception as error:
        # The message may quote any value, so only the log shows it.
        traceback.print_exc()
        name = type(error).__name__
        comment = render_failure(stack, f"the comment could not be rendered ({name}): see the job's log")
        exit_code = 1
    if commit := os.environ.get("COMMIT"):
        comment += f"\nAt commit {inline_code(commit[:8])}.\n"
    print(comment, end="")
    return exit_code


def _preview(stack: str, command: Sequence[str]) -> tuple[str, int]:
    """Runs the preview and returns the comment and the exit code."""
    if not command:
        return render_failure(stack, "the job failed before the preview: see its log"), 0
    try:
        prices = _read_price_file()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return render_failure(stack, str(error)), 1
    run = _run(command)
    sys.stderr.write(run.stderr)
    try:
        preview = parse_preview(run.stdout)
    except ValueError:
        # The engine failed before it started the program.
        preview = None
    if preview is None or (run.returncode and not preview.error):
        return render_failure(stack, run.stderr.strip()), run.returncode or 1
    policies = PolicyResult(len(RULES), find_violations(preview.resources_after, read_config(stack)))
    cost = monthly_cost(prices, preview.resources_before, preview.resources_after) if prices else None
    comment = render_comment(stack, preview, policies, cost)
    return comment, run.returncode or (1 if policies.violations else 0)


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs the engine. On an interrupt, lets it finish and raises `KeyboardInterrupt`."""
    # Records an interrupt that arrives while the engine starts, to pass it on afterwards.
    early_interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: early_interrupts.append(number))
    # In its own process group, because the engine gives up at a second interrupt.
    engine = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        signal.signal(signal.SIGINT, handler)
        if early_interrupts:
            raise KeyboardInterrupt
        stdout, stderr = engine.communicate()
    except KeyboardInterrupt:
        os.killpg(engine.pid, signal.SIGINT)
        try:
            sys.stderr.write(engine.communicate(timeout=_INTERRUPT_TIMEOUT)[1])
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, engine.returncode, stdout, stderr)


def _read_price_file() -> Prices | None:
    name = os.environ.get("PRICES")
    path = Path(name) if name else ROOT / "prices.json"
    if not name and not path.exists():
        return None
    try:
        return read_prices(path.read_text())
    except OSError as error:
        raise ValueError(f"PRICES={name}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError("\n".join(f"{path.name}: {line}" for line in str(error).splitlines())) from None


if __name__ == "__main__":
    run_command(main)
