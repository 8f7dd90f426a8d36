"""Runs `pulumi up` with a saved Pulumi update plan, or downloads the plan that a preview saved."""

import sys
from argparse import REMAINDER
from pathlib import Path

from operations.command_line import new_parser, run_command
from operations.forge.api import ForgeError
from operations.plan.apply import apply_plan
from operations.plan.fetch import fetch_plan


def main() -> int:
    parser = new_parser(
        "operations.plan",
        __doc__ or "",
        {0: "done", 1: "the plan is missing or stale", 2: "wrong arguments"},
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    apply = commands.add_parser(
        "apply",
        usage="python -m operations.plan apply [-h] PLAN UP ...",
        help="run pulumi up with a saved plan",
        description=(
            "Runs pulumi up with a plan that `make preview PLAN=…` saved. The engine refuses every change that is not in the"
            " plan. Where the plan is stale, the affected resources are printed without their values. Exits with the"
            " exit code of pulumi."
        ),
    )
    apply.add_argument("plan", metavar="PLAN", type=Path, help="the plan file")
    apply.add_argument(
        "up", metavar="UP", nargs=REMAINDER, help="the command to run: pulumi up and its options"
    )
    fetch = commands.add_parser(
        "fetch",
        help="download the plan of the tree that is checked out, in a job of GitHub or GitLab",
        description=(
            "Downloads the plan that a preview saved for exactly the Git tree that is checked out. Fails when there is none."
            " Runs in a job of GitHub or GitLab and needs only Python's standard library."
        ),
    )
    fetch.add_argument("stack", metavar="STACK")
    fetch.add_argument("file", metavar="FILE", type=Path, help="where to write the plan")
    arguments = parser.parse_args()
    if arguments.command == "apply":
        if not arguments.up:
            apply.error("UP is missing: give the command to run, pulumi up")
        return apply_plan(arguments.plan, arguments.up)
    try:
        fetch_plan(arguments.stack, arguments.file)
    except ForgeError as error:
        sys.exit(f"fetch: {error}")
    return 0


if __name__ == "__main__":
    run_command(main)
