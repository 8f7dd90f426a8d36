"""The cluster's node registry, read through the REST API of the web panel."""

import hashlib
import json
from functools import cache

from tests.e2e.clients import Client
from tests.e2e.running_cluster import DOMAIN, Cluster, Machine, wait_until


@cache
def hash_panel_password(cluster: Cluster) -> str:
    """Returns what the panel sends for its password. It is read once: each time costs Pulumi half a second of CPU time."""
    return hashlib.md5(cluster.get_config("panelPassword").encode(), usedforsecurity=False).hexdigest()


def list_registered_nodes(cluster: Cluster, client: Client) -> dict[str, str]:
    """Logs in as the panel's administrator and returns the status of each node by address."""
    credentials = {"email": f"admin@{DOMAIN}", "password": hash_panel_password(cluster)}
    login = client.post_json(f"https://{DOMAIN}:4444/rest/v2/users/authenticate", credentials)
    assert login.status == 200
    assert json.loads(login.body)["success"] is True
    cookies = "; ".join(value.split(";")[0] for name, value in login.headers if name.lower() == "set-cookie")
    nodes = client.get(f"https://{DOMAIN}:4444/rest/v2/cluster/nodes/0/50", f"Cookie: {cookies}\r\n")
    assert nodes.status == 200
    return {node["ip"]: node["status"] for node in json.loads(nodes.body)}


def wait_until_registered(cluster: Cluster, client: Client, expected: dict[str, str]) -> None:
    """Waits until the registry is as expected: a node that was busy for a while counts as dead until its next heartbeat."""

    def is_as_expected() -> bool:
        assert list_registered_nodes(cluster, client) == expected
        return True

    wait_until(is_as_expected)


def all_alive(machines: dict[str, Machine]) -> dict[str, str]:
    """Returns the registry in which every media node is alive."""
    return {machine.private_address: "alive" for machine in machines.values() if machine.is_media_node}
