"""Creates a stack, with its SSH keys and passwords as encrypted configuration and with its default tags.

Never changes what is set already, so it can run again at any time.
"""

from operations.command_line import PULUMI_FAILED, new_parser, run_command
from operations.new_stack.creation import create_stack, find_missing_settings


def main() -> None:
    exit_codes = {0: "the stack exists; it may still lack settings, which are printed"}
    parser = new_parser("operations.new_stack", f"{__doc__}", exit_codes | PULUMI_FAILED)
    parser.add_argument("stack", metavar="STACK", help="the stack's name, such as dev")
    stack: str = parser.parse_args().stack
    create_stack(stack)
    if missing := find_missing_settings(stack):
        print(f"Stack {stack} lacks settings that only you know. Run:")
        for command in missing:
            print(f"  {command}")
    else:
        print(f"Stack {stack} is ready: make up STACK={stack}")


if __name__ == "__main__":
    run_command(main)
