"""Processes and machines that fail while viewers watch."""

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client
from tests.e2e.running_cluster import DOMAIN, Cluster, wait_until

PAGE = f"https://{DOMAIN}:5443/LiveApp/"
STICKY = "Cookie: AMS_EDGE=edge1\r\n"


def serves(client: Client) -> bool:
    return client.get(PAGE).status == 200


def test_edge_that_hangs_loses_its_sessions_and_returns_by_itself(
    cluster: Cluster, operator_client: Client
) -> None:
    """The kernel of the load balancer must let the service close HAProxy's connections."""
    edge1, edge2 = (cluster.list_machines()[name].hostname for name in ("edge1", "edge2"))
    websocket = operator_client.open_websocket(f"https://{DOMAIN}:5443/LiveApp/websocket", STICKY)
    assert websocket.node == edge1
    cluster.run_on("edge1", "systemctl", "kill", "--signal=STOP", "antmedia").check()
    try:
        # Under way, or new, on the silent node: the service closes its connection, and another node answers.
        assert operator_client.get(PAGE, STICKY).node == edge2
        assert websocket.is_closed()
        log = cluster.run_on("load-balancer", "journalctl", "--unit=close-dead-connections", "--output=cat")
        assert "edge1 is down and did not respond within 4 s" in log.check()
    finally:
        cluster.run_on("edge1", "systemctl", "kill", "--signal=CONT", "antmedia").check()
    wait_until(lambda: operator_client.get(PAGE, STICKY).node == edge1)


def test_haproxy_that_is_killed_serves_again_within_three_seconds(
    cluster: Cluster, operator_client: Client
) -> None:
    killed = cluster.run_on(
        "load-balancer", "bash", "-c", "systemctl kill --signal=KILL haproxy && cat /proc/uptime"
    ).check()
    wait_until(lambda: serves(operator_client), interval=0)
    # systemd's time of the new start, on the clock of the kill.
    started = cluster.run_on(
        "load-balancer", "systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", "haproxy"
    ).check()
    assert 0 <= int(started) / 1e6 - float(killed.split()[0]) < 3


def test_load_balancer_that_reboots_serves_again_without_an_update(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    balancer = cluster.list_machines()["load-balancer"]
    cluster.run_on("load-balancer", "touch", "/run/not-kept").check()
    account.call("ec2", "reboot_instances", InstanceIds=[balancer.id])
    wait_until(lambda: cluster.run_on("load-balancer", "test", "!", "-e", "/run/not-kept").exit_code == 0)
    wait_until(lambda: serves(operator_client))
    units = (
        "haproxy",
        "close-dead-connections",
        "haproxy-ticket-keys.timer",
        "certbot.timer",
        "prometheus-node-exporter",
    )
    active = cluster.run_on("load-balancer", "systemctl", "is-active", *units).stdout
    assert active.split() == ["active"] * len(units)
