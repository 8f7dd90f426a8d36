"""Machines that reboot, stop, are terminated or are replaced."""

import hashlib
import sys
from collections import Counter
from pathlib import Path

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, Response
from tests.e2e.node_registry import all_alive, list_registered_nodes
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, Cluster, Machine, recording, wait_until
from tests.e2e.streams import publishing, wait_for_stream
from tests.project import PROJECT

NODES = ("origin1", "origin2", "edge1", "edge2")


def is_healthy(cluster: Cluster, server: str) -> bool:
    row = cluster.get_server_statistics()[server]
    return (row["status"], row["check_status"]) == ("UP", "L7OK")


def count_failed_checks(cluster: Cluster, server: str) -> int:
    return int(cluster.get_server_statistics()[server]["chkfail"])


def is_running(cluster: Cluster, name: str) -> bool:
    return cluster.list_machines()[name].nspawn_pid != 0


def serves_its_cookie(cluster: Cluster, operator_client: Client, edge: str) -> bool:
    """True if an edge serves a request that carries its cookie."""
    response = operator_client.get(f"https://{DOMAIN}:5443/LiveApp/", f"Cookie: AMS_EDGE={edge}\r\n")
    return response.node == cluster.list_machines()[edge].hostname


def assert_only_one_replaced(before: dict[str, Machine], after: dict[str, Machine], name: str) -> None:
    """Checks that one machine is a new instance at its old address and that all others are unchanged."""
    assert after[name].id != before[name].id
    assert after[name].private_address == before[name].private_address
    others = set(before) - {name}
    assert {other: after[other] for other in others} == {other: before[other] for other in others}


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
    assert serves_its_cookie(cluster, operator_client, "edge1")
    assert cluster.list_machines()["edge1"].id == edge.id


def test_stopped_origin_is_marked_down_and_serves_again_after_its_start(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    origin = cluster.list_machines()["origin1"]
    cluster.run_on("origin1", "touch", "/root/kept").check()
    account.call("ec2", "stop_instances", InstanceIds=[origin.id])
    wait_until(lambda: cluster.get_server_statistics()["origins/origin1"]["status"] == "DOWN")
    wait_until(lambda: not is_running(cluster, "origin1"))
    assert cluster.get_server_statistics()["rtmp/origin1"]["status"].startswith("DOWN")
    assert {operator_client.get(f"https://{DOMAIN}/LiveApp/").node for _ in range(4)} == {
        cluster.list_machines()["origin2"].hostname
    }
    account.call("ec2", "start_instances", InstanceIds=[origin.id])
    wait_until(lambda: is_healthy(cluster, "origins/origin1"))
    restarted = cluster.list_machines()["origin1"]
    assert (restarted.id, restarted.private_address) == (origin.id, origin.private_address)
    cluster.run_on("origin1", "cat", "/root/kept").check()


def test_terminated_edge_is_found_by_refresh_and_recreated_by_up(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    before = cluster.list_machines()
    account.call("ec2", "terminate_instances", InstanceIds=[before["edge2"].id])
    wait_until(lambda: "edge2" not in cluster.list_machines())
    assert "- 1 deleted" in cluster.refresh()
    cluster.update()
    assert_only_one_replaced(before, cluster.list_machines(), "edge2")
    assert is_healthy(cluster, "edges/edge2")
    assert serves_its_cookie(cluster, operator_client, "edge2")


def test_replaced_edge_keeps_its_name_and_address_and_rejoins(
    cluster: Cluster, operator_client: Client
) -> None:
    before = cluster.list_machines()
    cluster.run_on("edge1", "test", "-e", "/root/kept").check()
    (urn,) = [
        resource["urn"]
        for resource in cluster.list_state_resources()
        if resource["urn"].endswith("aws:ec2/instance:Instance::edge1")
    ]
    cluster.update("--replace", urn)
    after = cluster.list_machines()
    assert_only_one_replaced(before, after, "edge1")
    assert cluster.run_on("edge1", "test", "-e", "/root/kept").exit_code != 0  # its disk is new
    assert is_healthy(cluster, "edges/edge1")
    assert serves_its_cookie(cluster, operator_client, "edge1")
    assert list_registered_nodes(cluster, operator_client) == all_alive(after)
    cluster.pulumi("preview", "--expect-no-changes").check()


def find_problems(cluster: Cluster) -> str:
    return cluster.run("sandbox/bin/status", "--problems").stdout


def ask_valkey(cluster: Cluster, command: str, lines: int = 1) -> str:
    """Returns the last lines of the database's reply."""
    script = f'cd {SCRIPTS} && source valkey.sh && ask_valkey <<<"$1" | tail -n {lines}'
    return cluster.run_on("database", "bash", "-c", script, "ask", command).check()


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
                assert "its standby on the load balancer is the cluster registry" in find_problems(cluster)
                cluster.update()
                assert_only_one_replaced(before, cluster.list_machines(), "database")
                streams = ask_valkey(cluster, "HKEYS antmedia:broadcasts:LiveApp", lines=2)
                assert {"survivor", "newcomer"} <= set(streams.split())
                report = stop_viewers()
                assert find_problems(cluster) == ""
        assert publisher.poll() is None
        # Nobody noticed, and no server was restarted.
        assert Counter(outcome for _, _, _, outcome, _ in report["answers"]).keys() == {"200"}
        assert report["dropped"] == {}
        assert read_server_processes(cluster) == processes
        assert list_registered_nodes(cluster, operator_client) == all_alive(cluster.list_machines())
        # A registry that is emptied behind the program's back: the status names the stream and its node.
        ask_valkey(cluster, "FLUSHALL")
        problems = find_problems(cluster)
        assert "has live streams that the cluster registry does not know: LiveApp/survivor" in problems


def test_restored_registry_and_new_password_reach_every_node_without_a_restart_of_valkey(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.set_config("drainSeconds", 1)
    for node in NODES:
        cluster.run_on(node, "systemctl", "set-environment", "STAND_IN_START_SECONDS=2").check()
    file = tmp_path / "registry.rdb"
    ask_valkey(cluster, "HSET antmedia:users alice hash")
    cluster.run("sandbox/bin/registry", "backup", file).check()
    assert file.stat().st_mode & 0o777 == 0o600
    ask_valkey(cluster, "FLUSHALL")
    restored = cluster.run("sandbox/bin/registry", "restore", file)
    assert "Now run make up STACK=sandbox" in restored.check()
    assert ask_valkey(cluster, "HGET antmedia:users alice") == "hash\n"

    show_process = ("systemctl", "show", "valkey-server", "--property", "MainPID")
    process = cluster.run_on("database", *show_process).check()
    old = cluster.get_config("databasePassword")
    new = f"{old}-rotated"
    cluster.pulumi("config", "set", "--secret", "ant-media-cluster:databasePassword", new).check()
    assert "origin1-ant-media created replacement" in cluster.update()
    assert cluster.run_on("database", *show_process).check() == process
    users = cluster.run_on("database", "cat", "/etc/valkey/users.acl").check()
    assert hashlib.sha256(old.encode()).hexdigest() not in users
    assert hashlib.sha256(new.encode()).hexdigest() in users
    assert find_problems(cluster) == ""
