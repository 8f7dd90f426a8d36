"""A cluster that shrinks to a single node."""

from tests.e2e.clients import Client
from tests.e2e.running_cluster import DOMAIN, Cluster, wait_until


def test_single_remaining_node_serves_without_the_database_after_a_restart(
    cluster: Cluster, operator_client: Client
) -> None:
    cluster.set_config("edges.count", 0)
    cluster.set_config("origins.count", 1)
    cluster.update()
    wait_until(lambda: sorted(cluster.list_machines()) == ["load-balancer", "origin1"])
    cluster.run_on("origin1", "systemctl", "restart", "antmedia").check()
    wait_until(lambda: operator_client.get(f"https://{DOMAIN}/LiveApp/").status == 200)
    assert cluster.run_on("origin1", "systemctl", "is-active", "antmedia").stdout.strip() == "active"
