"""Creates and deletes test clusters: stacks with the settings of another stack, which expire.

Works on the stacks of the project in the current folder, with the pulumi on PATH.
"""

import sys

import yaml

from operations.command_line import PULUMI_FAILED, new_parser, run_command
from operations.test_clusters import lifecycle
from operations.test_clusters.settings import CommandError


def main() -> None:
    parser = new_parser(
        "operations.test_clusters",
        f"{__doc__}",
        {0: "done", 1: "the command is refused, or a test cluster could not be deleted"} | PULUMI_FAILED,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in (
        ("up", "create or update a test cluster, and extend its expiry"),
        ("settings", "print the settings that it would have, without secrets"),
    ):
        subparser = commands.add_parser(command, help=text)
        subparser.add_argument("name", metavar="NAME", help="name of the test cluster, such as pr-123")
        subparser.add_argument("ttl", metavar="TTL", help="time until it expires: 30m, 4h, 2d")
        subparser.add_argument("source", metavar="STACK", help="the stack to take the settings from")
    for command, text in (
        ("down", "delete a test cluster"),
        ("remove", "delete any stack, with its resources and settings file"),
    ):
        commands.add_parser(command, help=text).add_argument("name", metavar="NAME")
    commands.add_parser("list", help="list the test clusters and when they expire")
    commands.add_parser("down-expired", help="delete the test clusters that have expired")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "up":
                lifecycle.bring_up(arguments.name, arguments.ttl, arguments.source)
            case "settings":
                settings = lifecycle.settings_for(arguments.name, arguments.ttl, arguments.source)
                print(yaml.safe_dump(settings, sort_keys=False), end="")
            case "down":
                lifecycle.delete_test_cluster(arguments.name)
            case "remove":
                lifecycle.delete_stack(arguments.name)
            case "list":
                print(lifecycle.list_clusters())
            case _:
                lifecycle.delete_expired_test_clusters()
    except CommandError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run_command(main)
