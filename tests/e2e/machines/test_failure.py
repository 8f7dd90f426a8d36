"""Processes and machines that fail while viewers watch."""

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client
from tests.e2e.cluster_nodes import open_websocket_on
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
    websocket = open_websocket_on(operator_client, "edge1", edge1)
    cluster.run_on("edge1", "systemctl", "kill", "--signal=STOP", "antmedia").check()
    try:
        # Under way, or new, on the silent node: the service closes its connection, and another node answers.
        assert operator_client.get(PAGE, STICKY).node not in (edge1, None)
        assert websocket.is_closed()
        wait_until(lambda: operator_client.get(PAGE, STICKY).node == edge2)
        # The service writes its message after it has closed the connections.
        read_log = ("journalctl", "--unit=close-dead-connections", "--output=cat")
        message = "edge1 is down and did not respond within 4 s"
        wait_until(lambda: message in cluster.run_on("load-balancer", *read_log).check())
    finally:
        cluster.run_on("edge1", "systemctl", "kill", "--signal=CONT", "antmedia").check()
    wait_until(lambda: operator_client.get(PAGE, STICKY).node == edge1)


def kill_haproxy(cluster: Cluster, client: Client) -> float:
    """Returns the seconds until it serves again."""
    kill = "systemctl kill --signal=KILL haproxy && cat /proc/uptime"
    killed = float(cluster.run_on("load-balancer", "bash", "-c", kill).check().split()[0])
    show = ("systemctl", "show", "--value", "--property=ActiveEnterTimestampMonotonic", "haproxy")

    def measure() -> float:
        """systemd's time of the new start, on the clock of the kill."""
        return int(cluster.run_on("load-balancer", *show).check()) / 1e6 - killed

    wait_until(lambda: serves(client), interval=0)
    # systemd may learn later that HAProxy is ready.
    wait_until(lambda: measure() >= 0)
    return measure()


def test_haproxy_that_is_killed_serves_again_within_three_seconds(
    cluster: Cluster, operator_client: Client
) -> None:
    # A busy machine may delay a start.
    assert any(kill_haproxy(cluster, operator_client) < 3 for _ in range(3))


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

    def are_active() -> bool:
        """HAProxy serves before the last unit of the boot has started."""
        active = cluster.run_on("load-balancer", "systemctl", "is-active", *units).stdout
        assert active.split() == ["active"] * len(units)
        return True

    wait_until(are_active)
