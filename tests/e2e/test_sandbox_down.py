"""When all is done: nothing tried to leave, nothing stays, and AWS was asked for nothing that CI's roles may not do."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

import botocore.session
import pytest

from tests.e2e.conftest import Start
from tests.e2e.host_snapshot import left_of, processes_of_sandbox, take_snapshot
from tests.e2e.running_cluster import PROJECT, STATE, Cluster


@pytest.fixture(scope="module")
def calls(cluster: Cluster) -> Iterator[TextIO]:
    """Every call of the provider, also those that are made while the file's folder goes."""
    with (STATE / "aws/calls").open() as calls:
        yield calls


def test_nothing_tried_to_leave_the_sandbox(cluster: Cluster) -> None:
    status = cluster.status()
    assert (status["escaped_packets"], status["escaped_destinations"]) == (0, [])


def test_down_leaves_nothing_of_the_sandbox_and_the_host_as_it_was(
    start: Start, cluster: Cluster, calls: TextIO
) -> None:
    processes = processes_of_sandbox(int((STATE / "pid").read_text().split()[1]))
    assert len(processes) > 15  # that of two machines at least
    assert set(left_of(processes)) == {"processes", "mounts", "control groups", "state folder", "listeners"}

    down = cluster.take_away()
    assert down.status == 0, down.output
    assert "failed" not in down.output
    assert left_of(processes) == {}
    after = take_snapshot()
    changed = {name for name, value in start.before.sysctls.items() if after.sysctls.get(name) != value}
    assert changed == set()
    for what in ("mounts", "namespaces", "interfaces", "addresses", "routes", "nftables"):
        assert getattr(after, what) == getattr(start.before, what), what


def test_aws_was_asked_for_nothing_that_the_roles_of_ci_may_not_do(calls: TextIO) -> None:
    made = {_action(*line.split()) for line in calls}
    assert made >= {
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PutRolePolicy",
        "route53:GetHostedZone",
    }
    reads = {action for action in made if re.search(":(Describe|Get|List)", action)}
    looking, changing = _allowed("preview-permissions"), _allowed("deploy-permissions")
    # A volume is looked at so only while it grows.
    assert reads - looking <= {"ec2:DescribeVolumesModifications", "route53:GetChange"}
    assert made - looking - changing == set()


def _allowed(document: str) -> set[str]:
    policy = json.loads((PROJECT / f"docs/aws/{document}.json").read_text())
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def _action(service: str, method: str, path: str, name: str = "") -> str:
    """IAM's name of a call. Route 53 has no names in its calls."""
    if not name:
        model: Any = botocore.session.get_session().get_service_model(service)
        for operation in map(model.operation_model, model.operation_names):
            uri = re.sub(r"\{\w+\}", "[^/]+", operation.http["requestUri"].partition("?")[0].rstrip("/"))
            if operation.http["method"] == method and re.fullmatch(uri, path.rstrip("/")):
                name = str(operation.name)
    return f"{service}:{name}"
