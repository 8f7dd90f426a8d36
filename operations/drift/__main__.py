"""Reports drift: what differs from a stack's state in the cloud and on its machines.

Changes only the state: taints the steps that restore a machine, and imports rules that were added by hand. The next
`make up` runs these steps and deletes these rules.
"""

from operations.command_line import new_parser, run_command
from operations.drift.detection import detect_drift
from operations.drift.redaction import redact_secrets
from operations.drift.report import format_issue, format_text

_FORMATS = {"text": format_text, "markdown": format_issue}


def main() -> int:
    parser = new_parser(
        "operations.drift",
        f"{__doc__}",
        {
            0: "nothing differs",
            1: "something differs",
            2: "something could not be checked, or could not be marked in the state",
        },
    )
    parser.add_argument("stack", metavar="STACK", help="the stack's name, such as dev")
    parser.add_argument(
        "--format", choices=_FORMATS, default="text", help="text (default), or markdown for an issue"
    )
    arguments = parser.parse_args()
    drift, secrets = detect_drift(arguments.stack)
    print(redact_secrets(_FORMATS[arguments.format](arguments.stack, drift), secrets))
    return drift.exit_code


if __name__ == "__main__":
    run_command(main)
