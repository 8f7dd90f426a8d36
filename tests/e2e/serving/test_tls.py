"""TLS session resumption, HTTP/2 and Strict-Transport-Security, as browsers use them."""

import re
import ssl

import pytest

from tests.e2e.clients import Client
from tests.e2e.running_cluster import CA_FILE, DOMAIN, Cluster, wait_until

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
REQUEST = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}:5443\r\nConnection: close\r\n\r\n".encode()


class Browser:
    """Keeps the TLS session of its last connection to the play port, as browsers do."""

    def __init__(self, client: Client, version: ssl.TLSVersion) -> None:
        self._client = client
        self._context = ssl.create_default_context(cafile=str(CA_FILE))
        self._context.minimum_version = self._context.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def resumes_session(self) -> bool:
        """Connects once. True if the server resumes the session of the previous connection."""
        connection = self._context.wrap_socket(
            self._client.connect(5443), server_hostname=DOMAIN, session=self._session
        )
        with connection:
            connection.sendall(REQUEST)
            while connection.recv(65536):  # TLS 1.3 sends its tickets with the response
                pass
            resumed = connection.session_reused or False
            if not resumed:
                self._session = connection.session
            return resumed


@pytest.fixture(params=VERSIONS)
def browser(request: pytest.FixtureRequest, operator_client: Client) -> Browser:
    browser = Browser(operator_client, VERSIONS[request.param])
    assert not browser.resumes_session()
    assert browser.resumes_session()
    return browser


def get_worker_pid(cluster: Cluster) -> str:
    """Returns the PID of the HAProxy worker that serves."""
    found = re.search(r"(?m)^Pid: (\d+)$", cluster.run_haproxy_command("show info"))
    assert found
    return found[1]


def read_ticket_keys(cluster: Cluster) -> list[str]:
    return cluster.run_on("load-balancer", "cat", "/run/haproxy-tls/ticket-keys").stdout.split()


def rotate_ticket_keys(cluster: Cluster) -> None:
    cluster.run_on("load-balancer", "systemctl", "start", "haproxy-ticket-keys.service").check()


def test_session_resumes_after_reload(cluster: Cluster, browser: Browser) -> None:
    before = get_worker_pid(cluster)
    cluster.apply_haproxy_config(cluster.get_outputs()["haproxy_cfg"]).check()
    wait_until(lambda: get_worker_pid(cluster) != before)  # the old worker may still answer
    assert browser.resumes_session()


def test_session_resumes_after_one_ticket_key_rotation_but_not_after_two(
    cluster: Cluster, browser: Browser
) -> None:
    before, worker = read_ticket_keys(cluster), get_worker_pid(cluster)
    rotate_ticket_keys(cluster)
    after = read_ticket_keys(cluster)
    assert len(set(after)) == 3
    assert after[:2] == before[1:]
    assert browser.resumes_session()
    rotate_ticket_keys(cluster)
    assert not browser.resumes_session()
    assert browser.resumes_session()  # with a new ticket
    assert get_worker_pid(cluster) == worker  # no reload


def test_ticket_keys_rotate_twice_a_day_and_only_root_can_read_them(cluster: Cluster) -> None:
    timer = cluster.run_on("load-balancer", "systemctl", "show", "haproxy-ticket-keys.timer").stdout
    assert "\nActiveState=active\n" in timer
    assert "OnUnitActiveUSec=12h" in timer
    modes = cluster.run_on(
        "load-balancer", "stat", "-c", "%a %U", "/run/haproxy-tls", "/run/haproxy-tls/ticket-keys"
    )
    assert modes.stdout == "700 root\n600 root\n"


@pytest.mark.parametrize("port", [443, 4444, 5443])
def test_http_2_works(cluster: Cluster, port: int) -> None:
    path = "/rest/v2/liveness" if port == 4444 else "/LiveApp/"
    form = "%{http_version} %{response_code}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", form, f"https://{DOMAIN}:{port}{path}"]
    assert cluster.check_output(*cluster.operator_command(*command)) == "2 200"


def test_strict_transport_security_is_cleared_by_default(client: Client) -> None:
    for place in (f"{DOMAIN}/LiveApp/", f"{DOMAIN}:5443/LiveApp/", f"{DOMAIN}:4444/"):
        assert client.get(f"https://{place}").header("Strict-Transport-Security") == "max-age=0", place
