"""Recovers a stack after an interrupted Pulumi run, so that the next `pulumi up` or `pulumi destroy` succeeds.

Ends plugins whose engine was killed, removes the lock of a process that has ended, and imports resources that AWS
created but the state does not track. Finds those by their tags and names. Prints a line for each change, and nothing if there is nothing to do.
"""

from operations.command_line import PULUMI_FAILED, new_parser, run_command
from operations.recovery.recovery import recover_stack


def main() -> None:
    exit_codes = {
        0: "the stack is ready for the next run",
        1: "another run works on the stack, or a resource needs manual action",
    }
    parser = new_parser("operations.recovery", f"{__doc__}", exit_codes | PULUMI_FAILED)
    parser.add_argument("stack", metavar="STACK", help="the stack's name, such as dev")
    recover_stack(parser.parse_args().stack)


if __name__ == "__main__":
    run_command(main)
