"""Machines that restart, stop, end, and are replaced."""

import json

from tests.e2e.clients import Answer, Internet, Visitor
from tests.e2e.running_cluster import DOMAIN, Cluster, Machine, eventually
from tests.e2e.test_traffic import registered_nodes


def has_come_back(cluster: Cluster, server: str) -> bool:
    row = cluster.servers()[server]
    return (row["status"], row["check_status"]) == ("UP", "L7OK")


def failed_checks(cluster: Cluster, server: str) -> int:
    return int(cluster.servers()[server]["chkfail"])


def is_running(cluster: Cluster, name: str) -> bool:
    return cluster.machines()[name].nspawn != 0


def answers_as(cluster: Cluster, operator: Visitor, name: str) -> bool:
    """Whether a request with an edge's cookie is answered by that edge."""
    answer = operator.get(f"https://{DOMAIN}:5443/LiveApp/", f"Cookie: AMS_EDGE={name}\r\n")
    return answer.node == cluster.machines()[name].hostname


def in_ec2(cluster: Cluster, internet: Internet, action: str, machine: Machine) -> None:
    ec2 = cluster.aws("ec2")
    internet.do(lambda: getattr(ec2, action)(InstanceIds=[machine.id]))


def test_an_edge_that_reboots_keeps_its_disk_and_no_viewer_sees_it_go(
    cluster: Cluster, internet: Internet, operator: Visitor
) -> None:
    edge = cluster.machines()["edge1"]
    assert cluster.shell("edge1", "touch", "/root/kept", "/run/not-kept").status == 0
    before = failed_checks(cluster, "edges/edge1")
    in_ec2(cluster, internet, "reboot_instances", edge)
    answers: list[Answer] = []

    def has_rebooted() -> bool:
        answers.append(operator.get(f"https://{DOMAIN}:5443/LiveApp/"))
        return cluster.shell("edge1", "test", "!", "-e", "/run/not-kept").status == 0

    eventually(has_rebooted, within=30)
    eventually(lambda: has_rebooted() and has_come_back(cluster, "edges/edge1"), within=40)
    assert all(answer.node for answer in answers)
    assert failed_checks(cluster, "edges/edge1") > before
    assert cluster.shell("edge1", "cat", "/root/kept").status == 0
    assert answers_as(cluster, operator, "edge1")
    assert cluster.machines()["edge1"].id == edge.id


def test_an_origin_that_is_stopped_is_taken_out_and_comes_back_when_started(
    cluster: Cluster, internet: Internet, operator: Visitor
) -> None:
    origin = cluster.machines()["origin1"]
    assert cluster.shell("origin1", "touch", "/root/kept").status == 0
    in_ec2(cluster, internet, "stop_instances", origin)
    eventually(lambda: cluster.servers()["origins/origin1"]["status"] == "DOWN", within=30)
    eventually(lambda: not is_running(cluster, "origin1"), within=30)
    assert cluster.servers()["rtmp/origin1"]["status"].startswith("DOWN")
    assert {operator.get(f"https://{DOMAIN}/LiveApp/").node for _ in range(4)} == {
        cluster.machines()["origin2"].hostname
    }
    in_ec2(cluster, internet, "start_instances", origin)
    eventually(lambda: has_come_back(cluster, "origins/origin1"), within=40)
    again = cluster.machines()["origin1"]
    assert (again.id, again.private) == (origin.id, origin.private)
    assert cluster.shell("origin1", "cat", "/root/kept").status == 0


def test_an_instance_that_was_terminated_by_hand_is_noticed_by_refresh_and_made_again_by_up(
    cluster: Cluster, internet: Internet, operator: Visitor
) -> None:
    before = cluster.machines()
    in_ec2(cluster, internet, "terminate_instances", before["edge2"])
    eventually(lambda: "edge2" not in cluster.machines(), within=30)
    refresh = cluster.pulumi("refresh", "--yes", "--skip-preview")
    assert refresh.status == 0, refresh.output
    assert "- 1 deleted" in refresh.stdout
    cluster.update()
    after = cluster.machines()
    assert after["edge2"].id != before["edge2"].id
    assert after["edge2"].private == before["edge2"].private
    others = set(before) - {"edge2"}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert has_come_back(cluster, "edges/edge2")
    assert answers_as(cluster, operator, "edge2")


def test_a_replaced_machine_keeps_its_name_and_address_and_rejoins(
    cluster: Cluster, operator: Visitor
) -> None:
    before = cluster.machines()
    assert cluster.shell("edge1", "test", "-e", "/root/kept").status == 0
    state = json.loads(cluster.must("sandbox/bin/pulumi", "stack", "export"))
    (urn,) = [
        resource["urn"]
        for resource in state["deployment"]["resources"]
        if resource["urn"].endswith("aws:ec2/instance:Instance::edge1")
    ]
    cluster.update("--replace", urn)
    after = cluster.machines()
    assert after["edge1"].id != before["edge1"].id
    assert after["edge1"].private == before["edge1"].private
    others = set(before) - {"edge1"}
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    assert cluster.shell("edge1", "test", "-e", "/root/kept").status != 0  # a disk of its own
    assert has_come_back(cluster, "edges/edge1")
    assert answers_as(cluster, operator, "edge1")
    assert registered_nodes(cluster, operator) == {
        machine.private: "alive" for name, machine in after.items() if name.startswith(("origin", "edge"))
    }
    assert cluster.pulumi("preview", "--expect-no-changes").status == 0
