"""Backs up and restores the cluster registry of a stack, in Valkey on the stack's database machine.

`restore` marks the registry as replaced in the state: the next `make up` drains and restarts the nodes one after the other,
so that they register their streams in it.
"""

from pathlib import Path

from operations.command_line import PULUMI_FAILED, new_parser, run_command
from operations.registry.copies import back_up, restore


def main() -> int:
    exit_codes = {0: "done", 1: "the registry could not be read or replaced; the message says why"}
    parser = new_parser("operations.registry", f"{__doc__}", exit_codes | PULUMI_FAILED)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "backup": "write a copy of the registry to a new file",
        "restore": "replace the registry's data by that of a backup",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("stack", metavar="STACK", help="the stack's name, such as dev")
        command.add_argument("file", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    print({"backup": back_up, "restore": restore}[arguments.command](arguments.stack, arguments.file))
    return 0


if __name__ == "__main__":
    run_command(main)
