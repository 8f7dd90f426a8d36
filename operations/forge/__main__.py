"""Publishes reports on a forge and checks the approval of deployments. A forge is GitHub or GitLab; this runs in their jobs."""

import sys

from operations.command_line import new_parser, run_command
from operations.forge.api import ForgeError
from operations.forge.approval import require_approval
from operations.forge.reports import publish_comment, publish_issue

_REPORT = (
    "The report is Markdown on standard input. Its first line is a marker such as"
    " <!-- ant-media-cluster preview: dev -->, by which later runs find the post of the token's user and update it."
)


def main() -> None:
    parser = new_parser(
        "operations.forge",
        f"{__doc__}\nNeeds only Python's standard library.",
        {0: "done", 1: "the forge refused a request, or an approval is missing", 2: "wrong arguments"},
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser(
        "publish-comment",
        help="add or update a comment on the job's pull request or merge request",
        description=f"Adds or updates a comment on the job's pull request or merge request. {_REPORT}",
    )
    issue = commands.add_parser(
        "publish-issue",
        help="open, update or close an issue of the repository",
        description=f"Opens, updates or closes an issue of the repository. {_REPORT}",
    )
    issue.add_argument("title", metavar="TITLE", help="title of a new issue")
    issue.add_argument("--resolved", action="store_true", help="update and close the issue; open none")
    approval = commands.add_parser(
        "require-approval",
        help="fail unless deployments to a GitHub environment need an approval",
        description=(
            "Fails unless the GitHub environment has required reviewers and deployment branches."
            " GitHub creates a missing environment without either."
        ),
    )
    approval.add_argument("environment", metavar="ENVIRONMENT", help="name of the environment, such as prod")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "publish-comment":
                print(publish_comment(sys.stdin.read()))
            case "publish-issue":
                print(publish_issue(sys.stdin.read(), arguments.title, resolved=arguments.resolved))
            case _:
                require_approval(arguments.environment)
    except ForgeError as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    run_command(main)
