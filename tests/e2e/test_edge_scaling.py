"""From two edges to three and back, under the eyes of viewers and a publisher."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.clients import Visitor, WebSocket
from tests.e2e.running_cluster import DOMAIN, Cluster, Machine, eventually
from tests.e2e.streams import playlist, publisher, wait_for
from tests.e2e.test_traffic import registered_nodes

ADDRESS = "10.0.31.252"
"""The third edge's, by the plan: the first subnet's next from above."""


@dataclass(frozen=True)
class Audience:
    """Connections that were there before the first change."""

    websockets: list[WebSocket]
    publisher: "subprocess.Popen[str]"


@dataclass(frozen=True)
class Change:
    before: dict[str, Machine]
    preview: str
    after: dict[str, Machine]


@pytest.fixture(scope="module")
def audience(cluster: Cluster, operator: Visitor) -> Iterator[Audience]:
    with publisher(cluster, "survivor") as process:
        wait_for(operator, "survivor")
        urls = [f"https://{DOMAIN}/LiveApp/websocket", f"https://{DOMAIN}:5443/LiveApp/websocket"]
        yield Audience([operator.open_websocket(url) for url in urls], process)


def change_edges(cluster: Cluster, count: int) -> Change:
    before = cluster.machines()
    cluster.set("edges.count", count)
    preview = cluster.pulumi("preview", "--diff")
    assert preview.status == 0, preview.output
    cluster.update()
    return Change(before, preview.stdout, cluster.machines())


@pytest.fixture(scope="module")
def growth(cluster: Cluster, audience: Audience) -> Change:
    return change_edges(cluster, 3)


@pytest.fixture(scope="module")
def return_to_two(cluster: Cluster, growth: Change) -> Change:
    return change_edges(cluster, 2)


def changed_lines(preview: str, section: str) -> list[str]:
    """The lines with a sign, without their indentation, of a text that the preview shows as a line diff."""
    before, _, rest = preview.partition(section)
    indent = len(before) - len(before.rstrip(" "))
    lines: list[str] = []
    for line in rest.splitlines()[1:]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        if line.lstrip()[:1] in ("+", "-"):
            lines.append(" ".join(line.split()))
    return lines


def assert_server_lines(preview: str, sign: str) -> None:
    for section in ("~ stdin:", "~ haproxy_cfg"):
        first, second = changed_lines(preview, section)
        assert first.startswith(f"{sign} server edge3 {ADDRESS}:5080 ")
        assert "backup track edges/edge3" in first
        assert second.startswith(f"{sign} server edge3 {ADDRESS}:5080 ")
        assert "check cookie edge3" in second


def operations(preview: str, sign: str) -> list[str]:
    """Type and name of each resource that a preview is to create (+), delete (-), replace (+-) or change (~)."""
    found = re.findall(
        rf"(?m)^ *{re.escape(sign)} ?(?=[a-z])\S+: \((?!refresh)\w+\)\n(?: +\[id=.*\n)? +\[urn=.*::(.*)\]$",
        preview,
    )
    return sorted(found)


def test_the_preview_of_a_third_edge_shows_its_machine_and_its_server_lines_and_no_more(
    growth: Change,
) -> None:
    assert_server_lines(growth.preview, "+")
    assert operations(growth.preview, "+") == ["edge3", "edge3", "edge3-ant-media", "edge3-scripts"]
    assert operations(growth.preview, "-") == []
    assert operations(growth.preview, "~") == ["service-configuration"]
    # The two looks at all nodes: there is another node to look at.
    assert operations(growth.preview, "+-") == ["service-endpoints", "service-servers"]


def test_the_third_edge_serves(cluster: Cluster, operator: Visitor, growth: Change) -> None:
    assert growth.after["edge3"].private == ADDRESS
    assert {
        server: row["status"] for server, row in cluster.servers().items() if row["svname"] == "edge3"
    } == {
        "edges/edge3": "UP",
        "origins/edge3": "UP",
    }
    answer = operator.get(
        f"https://{DOMAIN}:5443/LiveApp/streams/survivor.m3u8", "Cookie: AMS_EDGE=edge3\r\n"
    )
    assert (answer.status, answer.node) == (200, growth.after["edge3"].hostname)
    assert registered_nodes(cluster, operator)[ADDRESS] == "alive"
    assert ADDRESS in [node["private_address"] for node in cluster.outputs()["nodes"]]


def test_the_machines_that_were_there_stay_as_they_are(growth: Change) -> None:
    assert {name: machine for name, machine in growth.after.items() if name != "edge3"} == growth.before


def test_the_preview_of_the_way_back_shows_what_goes(return_to_two: Change) -> None:
    assert_server_lines(return_to_two.preview, "-")
    assert operations(return_to_two.preview, "-") == ["edge3", "edge3", "edge3-ant-media", "edge3-scripts"]
    assert operations(return_to_two.preview, "+") == []
    assert operations(return_to_two.preview, "~") == ["service-configuration"]


def test_then_the_third_edge_is_gone_and_all_is_as_before(
    cluster: Cluster, operator: Visitor, growth: Change, return_to_two: Change
) -> None:
    assert return_to_two.after == growth.before
    assert "edge3" not in cluster.outputs()["haproxy_cfg"]
    assert not [server for server in cluster.servers() if server.endswith("/edge3")]
    assert ADDRESS not in registered_nodes(cluster, operator)
    assert cluster.pulumi("preview", "--expect-no-changes").status == 0


def test_connections_from_before_survived_both_changes(
    operator: Visitor, audience: Audience, return_to_two: Change
) -> None:
    for connection in audience.websockets:
        assert connection.answers()
    # ffmpeg ends when its connection does.
    assert audience.publisher.poll() is None
    last = playlist(operator, "survivor")
    eventually(lambda: playlist(operator, "survivor") not in ("", last), within=10)
