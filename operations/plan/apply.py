"""Do what was reviewed, and nothing else: `pulumi up` held to a plan that `make preview PLAN=…` saved.

usage: apply_plan.py PLAN COMMAND...

COMMAND is `pulumi up`. The engine previews once more and compares before it touches anything. Where that differs from the
plan it quotes the values of both, secrets in clear: from there on nothing of what it says is printed.
"""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

_DIFFERS = re.compile(
    r"violates plan|not allowed by the plan|no plan for resource|expected resource operations for"
)
_RESOURCE = re.compile(r"^\W*((?:[\w-]+:)+)(\w+) (\S+) .*error: ")


def _go_on(number: int, frame: FrameType | None) -> None:
    pass


def _place(package: str, kind: str, name: str) -> str:
    """Nobody has heard of default_7_51_1."""
    return f"the settings of the {kind} provider (tags, region)" if package == "pulumi:providers:" else name


def main() -> int:
    plan, *command = sys.argv[1:]
    if not Path(plan).is_file():
        sys.exit(
            f"PLAN={plan}: there is no such file; make preview PLAN={plan} saves it, where the preview succeeds."
        )
    try:
        json.loads(Path(plan).read_text())
    except ValueError:
        sys.exit(
            f"PLAN={plan}: this is no whole plan; save it again: make preview FORMAT=markdown PLAN={plan}"
        )
    # An interrupt reaches the engine too, which ends in good order; what it says of that is still to be read.
    signal.signal(signal.SIGINT, _go_on)
    updating, differs, explained, resources = False, False, False, list[str]()
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
            updating = updating or (not differs and line.startswith("Updating ("))
            if _DIFFERS.search(line):
                differs = True
                resources += [_place(*found.groups()) for found in [_RESOURCE.match(line)] if found]
            explained = explained or "error:" in line
            if not differs:
                print(line, end="", flush=True)
    again = f"Preview and review again: make preview FORMAT=markdown PLAN={plan}"
    if differs:
        touched = "Part of it was done before that showed." if updating else "Nothing was touched."
        where = f" It shows at {', '.join(dict.fromkeys(resources))}." if resources else ""
        sys.exit(
            f"\n{touched} What would be done is no longer what was reviewed: since the plan was saved, the settings, the "
            f"program or the cloud became another.{where}\n{again}"
        )
    if up.returncode > 0 and not (updating or explained):
        # So it ends where only the stack's outputs are others.
        sys.exit(
            "\nNothing was touched: what would be done is no longer what was reviewed; it may be an output of the stack.\n"
            + again
        )
    return up.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FileNotFoundError as error:
        sys.exit(f"apply_plan.py needs {error.filename} on PATH.")
