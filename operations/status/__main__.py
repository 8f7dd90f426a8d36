"""Prints a cluster's machines, HAProxy's servers, the certificate and the result of its last renewal, the applications and the
nodes that refuse publishers, and compares how the nodes see the cluster registry.

Checks the stack that Pulumi has selected (PULUMI_STACK, or pulumi stack select) from this machine.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cluster.settings.model import NAMESPACE
from operations.command_line import PULUMI_FAILED, new_parser, run_command
from operations.engine import run_pulumi
from operations.stack_state import read_stack_state
from operations.status.cluster import Cluster, Unreachable
from operations.status.probe import Login, check_cluster
from operations.status.problems import find_problems
from operations.status.report import format_report

SECOND_LOOK = 5
"""Seconds. A busy server misses a health check, and is up again three seconds later. So one that is down after an update is looked at twice."""


def has_server_that_is_down(cluster: Cluster) -> bool:
    return not isinstance(cluster.servers, Unreachable) and any(server.is_down for server in cluster.servers)


def main() -> int:
    exit_codes = {0: "no problems found", 1: "there are problems, or there is no cluster yet"}
    parser = new_parser("operations.status", f"{__doc__}", exit_codes | PULUMI_FAILED)
    parser.add_argument("--problems", action="store_true", help="print only the problems, if there are any")
    only_problems: bool = parser.parse_args().problems
    here = Path()
    outputs = json.loads(run_pulumi("stack", "output", "--json", folder=here))
    if "load_balancer_ip" not in outputs:
        sys.exit("There is no cluster yet: run make up first.")
    configuration = json.loads(run_pulumi("config", "--json", "--show-secrets", folder=here))
    user, password, panel_password = (
        configuration[f"{NAMESPACE}:{key}"]["value"]
        for key in ("statisticsUser", "statisticsPassword", "panelPassword")
    )
    state = read_stack_state(run_pulumi("stack", "export", "--show-secrets", folder=here))

    def check() -> Cluster:
        return check_cluster(outputs, configuration, Login(user, password), panel_password, state)

    cluster = check()
    if only_problems and has_server_that_is_down(cluster):
        time.sleep(SECOND_LOOK)
        cluster = check()
    now = datetime.now(UTC)
    problems = find_problems(cluster, now)
    if not only_problems:
        print(format_report(cluster, now))
    elif problems:
        print("\n".join(["Problems", *(f"  {problem}" for problem in problems)]))
    return 1 if problems else 0


if __name__ == "__main__":
    run_command(main)
