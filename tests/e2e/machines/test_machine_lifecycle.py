"""Machines that reboot or stop, and the loss of the database."""

import sys
from collections import Counter

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, Response
from tests.e2e.cluster_nodes import (
    NODES,
    ask_valkey,
    assert_replaced,
    find_problems,
    is_healthy,
    serves_its_cookie,
    wait_until_no_problems,
)
from tests.e2e.node_registry import all_alive, list_registered_nodes, wait_until_registered
from tests.e2e.running_cluster import DOMAIN, Cluster, recording, wait_until
from tests.e2e.streams import publishing, wait_for_stream
from tests.project import PROJECT


def count_failed_checks(cluster: Cluster, server: str) -> int:
    return int(cluster.get_server_statistics()[server]["chkfail"])


def is_running(cluster: Cluster, name: str) -> bool:
    return cluster.list_machines()[name].nspawn_pid != 0


def test_rebooted_edge_keeps_its_disk_and_no_request_fails(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    edge = cluster.list_machines()["edge1"]
    cluster.run_on("edge1", "touch", "/root/kept", "/run/not-kept").check()
    before = count_failed_checks(cluster, "edges/edge1")
    account.call("ec2", "reboot_instances", InstanceIds=[edge.id])
    responses: list[Response] = []

    def has_rebooted() -> bool:
        responses.append(operator_client.get(f"https://{DOMAIN}:5443/LiveApp/"))
        return cluster.list_machines()["edge1"].nspawn_pid not in (0, edge.nspawn_pid)

    wait_until(lambda: has_rebooted() and count_failed_checks(cluster, "edges/edge1") > before)
    wait_until(lambda: has_rebooted() and is_healthy(cluster, "edges/edge1"))
    assert all(response.node for response in responses)
    cluster.run_on("edge1", "test", "-e", "/root/kept", "-a", "!", "-e", "/run/not-kept").check()
    wait_until(lambda: serves_its_cookie(cluster, operator_client, "edge1"))
    assert cluster.list_machines()["edge1"].id == edge.id


def test_stopped_origin_is_marked_down_and_serves_again_after_its_start(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    origin = cluster.list_machines()["origin1"]
    cluster.run_on("origin1", "touch", "/root/kept").check()
    account.call("ec2", "stop_instances", InstanceIds=[origin.id])
    wait_until(lambda: cluster.get_server_statistics()["origins/origin1"]["status"] == "DOWN")
    wait_until(lambda: not is_running(cluster, "origin1"))
    left = origin.private_address not in list_registered_nodes(cluster, operator_client)
    assert cluster.get_server_statistics()["rtmp/origin1"]["status"].startswith("DOWN")
    # An edge answers while HAProxy finds the other origin down.
    origin2 = cluster.list_machines()["origin2"].hostname
    wait_until(
        lambda: {operator_client.get(f"https://{DOMAIN}/LiveApp/").node for _ in range(4)} == {origin2}
    )
    account.call("ec2", "start_instances", InstanceIds=[origin.id])
    wait_until(lambda: is_healthy(cluster, "origins/origin1"))
    restarted = cluster.list_machines()["origin1"]
    assert (restarted.id, restarted.private_address) == (origin.id, origin.private_address)
    cluster.run_on("origin1", "cat", "/root/kept").check()
    # A server whose machine shuts down leaves the registry, unless systemd kills it first: as the original, it has 10 s to stop.
    log = ("journalctl", "--boot=-1", "--unit=antmedia", "--no-pager")
    assert left or "Killing process" in cluster.run_on("origin1", *log).check()


def read_server_processes(cluster: Cluster) -> list[str]:
    show = ("systemctl", "show", "antmedia", "--property", "MainPID")
    return [cluster.run_on(node, *show).check() for node in NODES]


def test_what_plays_goes_on_without_the_database_and_a_new_machine_gets_its_data(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    before = cluster.list_machines()
    processes = read_server_processes(cluster)
    viewers = ("-m", "bench.live_viewers", DOMAIN, "10", "10", "survivor")
    command = cluster.operator_command("env", f"PYTHONPATH={PROJECT}", sys.executable, *viewers)
    with publishing(cluster, "survivor") as publisher:
        wait_for_stream(operator_client, "survivor")
        with recording(command) as stop_viewers:
            account.call("ec2", "terminate_instances", InstanceIds=[before["database"].id])
            wait_until(lambda: "database" not in cluster.list_machines())
            # The standby takes writes too.
            with publishing(cluster, "newcomer"):
                wait_for_stream(operator_client, "newcomer")
                standby = "its standby on the load balancer is the cluster registry"
                wait_until(lambda: standby in find_problems(cluster))
                cluster.update()
                assert_replaced(before, cluster.list_machines(), "database")
                streams = ask_valkey(cluster, "HKEYS antmedia:broadcasts:LiveApp", lines=2)
                assert {"survivor", "newcomer"} <= set(streams.split())
                report = stop_viewers()
                wait_until_no_problems(cluster)
        assert publisher.poll() is None
        # Nobody noticed, and no server was restarted.
        assert Counter(outcome for _, _, _, outcome, _ in report["answers"]).keys() == {"200"}
        assert read_server_processes(cluster) == processes
        assert report["dropped"] == {}
        wait_until_registered(cluster, operator_client, all_alive(cluster.list_machines()))
        # A registry that is emptied behind the program's back: the status names the stream and its node.
        ask_valkey(cluster, "FLUSHALL")
        problems = find_problems(cluster)
        assert "has live streams that the cluster registry does not know: LiveApp/survivor" in problems
