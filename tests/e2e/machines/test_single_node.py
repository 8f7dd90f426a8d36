"""A cluster that loses its database, and one that shrinks to a single node."""

import json

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client
from tests.e2e.running_cluster import DOMAIN, Cluster, wait_until


def test_recreated_database_has_its_administrator_before_a_stranger_can_register(
    cluster: Cluster, account: AwsAccount, operator_client: Client
) -> None:
    """The standby, which would give the new database its data, has lost it too."""
    account.call("ec2", "terminate_instances", InstanceIds=[cluster.list_machines()["database"].id])
    lose = "systemctl stop keep-registry valkey-server && rm -r /var/lib/valkey/* && systemctl start valkey-server keep-registry"
    cluster.run_on("load-balancer", "bash", "-c", lose).check()
    cluster.refresh()
    assert "edge1-ant-media created replacement" in cluster.update()
    stranger = {"email": "stranger@example.org", "password": "0" * 32, "scope": "system", "userType": "ADMIN"}
    response = operator_client.post_json(f"https://{DOMAIN}:4444/rest/v2/users/initial", stranger)
    assert json.loads(response.body)["success"] is False


def test_single_remaining_node_serves_without_the_database_after_a_restart(
    cluster: Cluster, operator_client: Client
) -> None:
    cluster.set_config("edges.count", 0)
    cluster.set_config("origins.count", 1)
    cluster.update()
    assert sorted(cluster.list_machines()) == ["load-balancer", "origin1"]
    cluster.run_on("origin1", "systemctl", "restart", "antmedia").check()
    wait_until(lambda: operator_client.get(f"https://{DOMAIN}/LiveApp/").status == 200)
    assert cluster.run_on("origin1", "systemctl", "is-active", "antmedia").stdout.strip() == "active"
