"""What takes a cluster's database away: a hand, or a change to a single node."""

import json

from tests.e2e.clients import Internet, Visitor
from tests.e2e.running_cluster import DOMAIN, Cluster, eventually
from tests.e2e.test_machine_lifecycle import in_ec2


def test_a_database_made_anew_has_its_administrator_before_anybody_else_can_become_it(
    cluster: Cluster, internet: Internet, operator: Visitor
) -> None:
    in_ec2(cluster, internet, "terminate_instances", cluster.machines()["database"])
    refresh = cluster.pulumi("refresh", "--yes", "--skip-preview")
    assert refresh.status == 0, refresh.output
    cluster.update()
    stranger = {"email": "stranger@example.org", "password": "0" * 32, "scope": "system", "userType": "ADMIN"}
    answer = operator.post_json(f"https://{DOMAIN}:4444/rest/v2/users/initial", stranger)
    assert json.loads(answer.body)["success"] is False


def test_the_node_that_is_left_serves_without_the_database_also_after_a_restart(
    cluster: Cluster, operator: Visitor
) -> None:
    cluster.set("edges.count", 0)
    cluster.set("origins.count", 1)
    cluster.update()
    assert sorted(cluster.machines()) == ["load-balancer", "origin1"]
    restart = cluster.shell("origin1", "systemctl", "restart", "antmedia")
    assert restart.status == 0, restart.output
    eventually(lambda: operator.get(f"https://{DOMAIN}/LiveApp/").status == 200, within=30)
    assert cluster.shell("origin1", "systemctl", "is-active", "antmedia").stdout.strip() == "active"
