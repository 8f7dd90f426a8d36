"""Print what a preview would change as Markdown, for a comment on a pull request.

usage: preview_comment.py STACK [COMMAND...]

COMMAND is one that previews with --json --show-sames: the engine blinds secrets in it, and nothing else is asked of it.
Ends as the preview ends, or with 1 where a policy is violated. Without COMMAND the comment says that there is no
preview. Whatever happens there is a comment, or an older one would pass for what is so now.

The file that PRICES names, else prices.json, says what things cost; COMMIT the commit that is previewed.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from operations.engine import ROOT
from operations.markdown import code
from operations.preview.changes import read_preview
from operations.preview.monthly_cost import Prices, monthly_cost, read_prices
from operations.preview.report import Policies, comment, failure
from policy.rules import RULES, read_config, violations

INTERRUPTED = 130
PATIENCE = 60
"""Seconds in which an engine that is interrupted must end."""


def main() -> int:
    stack, *command = sys.argv[1:]
    try:
        text, status = _comment(stack, command)
    except KeyboardInterrupt:
        text = failure(stack, "the preview was interrupted, or took too long, before it was done")
        status = INTERRUPTED
    except FileNotFoundError as error:
        sys.stderr.write(f"preview_comment.py needs {error.filename} on PATH.\n")
        text, status = failure(stack, f"{error.filename} is not on PATH"), 1
    except Exception as error:
        # What the error says is for the log: it could quote anything.
        traceback.print_exc()
        text, status = (
            failure(stack, f"no comment could be made ({type(error).__name__}): see the job's log"),
            1,
        )
    if commit := os.environ.get("COMMIT"):
        text += f"\nAt commit {code(commit[:8])}.\n"
    print(text, end="")
    return status


def _comment(stack: str, command: Sequence[str]) -> tuple[str, int]:
    """And the status to end with."""
    if not command:
        return failure(stack, "the job failed before there was a preview: see its log"), 0
    try:
        prices = _prices()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return failure(stack, str(error)), 1
    run = _run(command)
    sys.stderr.write(run.stderr)
    try:
        preview = read_preview(run.stdout)
    except ValueError:
        # The engine did not get as far as the program.
        preview = None
    if preview is None or (run.returncode and not preview.error):
        return failure(stack, run.stderr.strip()), run.returncode or 1
    policies = Policies(len(RULES), violations(preview.after, read_config(stack)))
    cost = monthly_cost(prices, preview.before, preview.after) if prices else None
    return comment(stack, preview, policies, cost), run.returncode or (1 if policies.violations else 0)


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # An interrupt that comes while the engine starts must reach it too.
    early: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: early.append(number))
    # In a group of its own, as it gives up at once on a second one.
    engine = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        signal.signal(signal.SIGINT, usual)
        if early:
            raise KeyboardInterrupt
        stdout, stderr = engine.communicate()
    except KeyboardInterrupt:
        os.killpg(engine.pid, signal.SIGINT)
        try:
            sys.stderr.write(engine.communicate(timeout=PATIENCE)[1])
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, engine.returncode, stdout, stderr)


def _prices() -> Prices | None:
    named = os.environ.get("PRICES")
    path = Path(named) if named else ROOT / "prices.json"
    if not named and not path.exists():
        return None
    try:
        return read_prices(path.read_text())
    except OSError as error:
        raise ValueError(f"PRICES={named}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError("\n".join(f"{path.name}: {line}" for line in str(error).splitlines())) from None


if __name__ == "__main__":
    sys.exit(main())
