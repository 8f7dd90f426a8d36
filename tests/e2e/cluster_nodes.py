"""The state of the cluster's machines, as HAProxy and AWS show it."""

from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.e2e.clients import Client, WebSocket
from tests.e2e.running_cluster import DOMAIN, Cluster, Machine, wait_until

NODES = ("origin1", "origin2", "edge1", "edge2")
BACKENDS_OF_EDGES = ("edges", "origins", "whep", "whip")


def is_healthy(cluster: Cluster, server: str) -> bool:
    row = cluster.get_server_statistics()[server]
    return (row["status"], row["check_status"]) == ("UP", "L7OK")


def serves_its_cookie(cluster: Cluster, operator_client: Client, edge: str) -> bool:
    """True if an edge answers a request with its cookie."""
    response = operator_client.get(f"https://{DOMAIN}:5443/LiveApp/", f"Cookie: AMS_EDGE={edge}\r\n")
    return response.node == cluster.list_machines()[edge].hostname


def open_websocket_on(operator_client: Client, edge: str, hostname: str) -> WebSocket:
    """Opens a WebSocket with an edge's cookie. Tries again if another node answers because HAProxy finds the edge down."""
    opened: list[WebSocket] = []

    def is_open() -> bool:
        websocket = operator_client.open_websocket(
            f"https://{DOMAIN}:5443/LiveApp/websocket", f"Cookie: AMS_EDGE={edge}\r\n"
        )
        if websocket.node == hostname:
            opened.append(websocket)
        else:
            websocket.close()
        return bool(opened)

    wait_until(is_open)
    return opened[0]


def assert_replaced(before: dict[str, Machine], after: dict[str, Machine], *names: str) -> None:
    """Checks that these machines are new instances with their former addresses. All others must be unchanged."""
    for name in names:
        assert after[name].id != before[name].id
        assert after[name].private_address == before[name].private_address
    others = set(before) - set(names)
    assert {other: after[other] for other in others} == {other: before[other] for other in others}


def find_problems(cluster: Cluster) -> str:
    return cluster.run("sandbox/bin/status", "--problems").stdout


def wait_until_no_problems(cluster: Cluster) -> None:
    """Waits, since a busy HAProxy may find a server down for some moments."""

    def finds_none() -> bool:
        status = cluster.run("sandbox/bin/status", "--problems")
        assert status.exit_code == 0, status.output
        return True

    wait_until(finds_none)


def wait_until_up(cluster: Cluster, *servers: str) -> None:
    """Waits until HAProxy finds these servers up. They are `backend/server`."""

    def are_up() -> bool:
        statistics = cluster.get_server_statistics()
        assert {server: statistics[server]["status"] for server in servers} == dict.fromkeys(servers, "UP")
        return True

    wait_until(are_up)


def ask_valkey(cluster: Cluster, command: str, lines: int = 1, machine: str = "database") -> str:
    """Returns the last lines of the reply of a machine's Valkey. The machine is given by name or ID."""
    script = f'cd {INSTALLED_SCRIPTS} && source valkey.sh && ask_valkey <<<"$1" | tail -n {lines}'
    return cluster.run_on(machine, "bash", "-c", script, "ask", command).check()


def upload_recordings(cluster: Cluster) -> None:
    """Sets that the next update creates a bucket, to which nodes upload recordings of the application LiveApp."""
    cluster.set_config("recordings.bucket", "create")
    cluster.set_config("applicationSettings.LiveApp.mp4MuxingEnabled", "true")
