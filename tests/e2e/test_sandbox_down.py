"""Checks at the end: no packet escaped, `make down` removes everything, and CI's IAM roles permit every AWS call."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, TextIO

import botocore.session
import pytest

from tests.e2e.conftest import Startup
from tests.e2e.host_snapshot import find_leftovers, list_sandbox_processes, take_snapshot
from tests.e2e.running_cluster import STATE, Cluster, get_sandbox_init, wait_until
from tests.project import PROJECT


@pytest.fixture(scope="module")
def aws_calls(cluster: Cluster) -> Iterator[TextIO]:
    """The provider's log of AWS calls, opened before its folder is deleted."""
    with (STATE / "aws/calls").open() as aws_calls:
        yield aws_calls


def test_no_packet_tried_to_leave_the_sandbox(cluster: Cluster) -> None:
    status = cluster.get_status()
    assert (status["escaped_packets"], status["escaped_destinations"]) == (0, [])


def test_down_removes_the_sandbox_and_restores_the_host(
    startup: Startup, cluster: Cluster, aws_calls: TextIO
) -> None:
    processes = list_sandbox_processes(get_sandbox_init())
    running = [machine for machine in cluster.list_machines().values() if machine.nspawn_pid]
    assert len(processes) > 7 * len(running)
    assert set(find_leftovers(processes)) == {
        "processes",
        "mounts",
        "control groups",
        "state folder",
        "listeners",
    }

    down = cluster.tear_down()
    down.check()
    assert "failed" not in down.output

    def is_gone() -> bool:
        """The cloud's last process releases its lock shortly before it ends."""
        assert find_leftovers(processes) == {}
        return True

    wait_until(is_gone)
    after = take_snapshot()
    changed = {
        name for name, value in startup.host_before.sysctls.items() if after.sysctls.get(name) != value
    }
    assert changed == set()
    for kind in ("mounts", "namespaces", "interfaces", "addresses", "routes", "nftables"):
        assert getattr(after, kind) == getattr(startup.host_before, kind), kind


def test_ci_roles_permit_every_aws_call(aws_calls: TextIO) -> None:
    called = {_get_iam_action(*line.split()) for line in aws_calls}
    assert called >= {
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PutRolePolicy",
        "route53:GetHostedZone",
    }
    reads = {action for action in called if re.search(":(Describe|Get|List)", action)}
    preview = _list_permissions("preview-permissions")
    deploy = _list_permissions("deploy-permissions") | _list_permissions("recordings-permissions")
    # The provider calls these two only while a volume grows or a record changes.
    of_users = {action for action in reads if action in _list_permissions("recordings-permissions")}
    assert reads - preview - of_users <= {"ec2:DescribeVolumesModifications", "route53:GetChange"}
    assert called - preview - deploy == set()


def _list_permissions(document: str) -> set[str]:
    policy = json.loads((PROJECT / f"docs/aws/{document}.json").read_text())
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def _get_iam_action(service: str, method: str, path: str, name: str = "") -> str:
    """Returns the IAM action of a call. Route 53's calls carry no name, so method and path identify them."""
    if not name:
        for operation, operation_method, uri in _list_operations(service):
            if operation_method == method and uri.fullmatch(path.rstrip("/")):
                name = operation
    return f"{service}:{name}"


@cache
def _list_operations(service: str) -> list[tuple[str, str, re.Pattern[str]]]:
    """Returns name, HTTP method and URI of each operation."""
    model: Any = botocore.session.get_session().get_service_model(service)
    requests = {name: model.operation_model(name).http for name in model.operation_names}
    return [
        (
            name,
            request["method"],
            re.compile(re.sub(r"\{\w+\}", "[^/]+", request["requestUri"].partition("?")[0].rstrip("/"))),
        )
        for name, request in requests.items()
    ]
