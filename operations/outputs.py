"""Prints the JSON of `pulumi stack output --json` as tables. Leaves out haproxy.cfg, which is too long."""

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from operations.command_line import new_parser, run_command
from operations.table import format_table


def format_outputs(outputs: Mapping[str, Any]) -> str:
    """Returns a table of the outputs, and one of the nodes below it."""
    shown = [
        (name, ", ".join(cast(list[str], value)) if isinstance(value, list) else str(value))
        for name, value in outputs.items()
        if name not in ("haproxy_cfg", "nodes") and value != []
    ]
    nodes = [
        (node["name"], node["private_address"], node["public_address"]) for node in outputs.get("nodes", [])
    ]
    return f"{format_table(shown)}\n\n{format_table([('node', 'private address', 'public address'), *nodes])}"


def main() -> None:
    exit_codes = {0: "the tables were printed", 1: "standard input is not JSON"}
    new_parser("operations.outputs", f"{__doc__}\nReads standard input.", exit_codes).parse_args()
    try:
        outputs = json.load(sys.stdin)
    except ValueError:
        sys.exit("Standard input is not JSON: give it the output of pulumi stack output --json")
    print(format_outputs(outputs))


if __name__ == "__main__":
    run_command(main)
