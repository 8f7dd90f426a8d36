"""Runs `pulumi up` with a saved plan and hides the values that the engine quotes when the plan is stale."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from operations.engine import ignore_interrupts

_PLAN_VIOLATION = re.compile(
    r"violates plan|not allowed by the plan|no plan for resource|expected resource operations for"
)
_RESOURCE = re.compile(r"^\W*((?:[\w-]+:)+)(\w+) (\S+) .*error: ")


def apply_plan(plan: Path, command: Sequence[str]) -> int:
    """Runs the command (`pulumi up`) with the plan and returns its exit code.

    The engine previews again and compares the result with the plan before it changes anything. In an error it quotes old
    and new values, secrets in clear text. So nothing more of its output is printed after the first plan violation.
    """
    _check_plan(plan)
    # An interrupt reaches the engine too. It stops in good order, and its output must still be read.
    ignore_interrupts()
    updating, stale, error_shown, resources = False, False, False, list[str]()
    up = subprocess.Popen(
        [*command, "--yes", "--plan", plan],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert up.stdout
    with up:
        for line in up.stdout:
            updating = updating or (not stale and line.startswith("Updating ("))
            if _PLAN_VIOLATION.search(line):
                stale = True
                resources += [_format_resource(*match.groups()) for match in [_RESOURCE.match(line)] if match]
            error_shown = error_shown or "error:" in line
            if not stale:
                print(line, end="", flush=True)
    remedy = f"Preview and review again: make preview FORMAT=markdown PLAN={plan}"
    if stale:
        progress = "Part of the update was done." if updating else "Nothing was changed."
        names = f" Affected: {', '.join(dict.fromkeys(resources))}." if resources else ""
        sys.exit(
            f"\n{progress} The plan is stale: since it was saved, the settings, the program or the cloud have changed.{names}\n"
            + remedy
        )
    if up.returncode > 0 and not (updating or error_shown):
        # The engine reports no error when only a stack output violates the plan.
        sys.exit(
            f"\nNothing was changed. The plan is stale: probably an output of the stack has changed.\n{remedy}"
        )
    return up.returncode


def _check_plan(plan: Path) -> None:
    if not plan.is_file():
        sys.exit(
            f"PLAN={plan}: no such file; save it with make preview PLAN={plan} (a failed preview saves none)"
        )
    try:
        json.loads(plan.read_text())
    except ValueError:
        sys.exit(
            f"PLAN={plan}: the plan is incomplete; save it again with make preview FORMAT=markdown PLAN={plan}"
        )


def _format_resource(package: str, kind: str, name: str) -> str:
    """Returns the resource's name, or a description for a provider, whose name means nothing (default_7_51_1)."""
    return f"the settings of the {kind} provider (tags, region)" if package == "pulumi:providers:" else name
