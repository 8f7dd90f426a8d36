"""Sessions, HTTP/2 and Strict-Transport-Security, as a browser meets them on the cluster's ports."""

import re
import ssl

import pytest

from tests.e2e.clients import Visitor
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, STATE, Cluster

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
REQUEST = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}:5443\r\nConnection: close\r\n\r\n".encode()


class Browser:
    """Keeps the session of its last connection to the play port, as browsers do."""

    def __init__(self, visitor: Visitor, version: ssl.TLSVersion) -> None:
        self._visitor = visitor
        self._context = ssl.create_default_context(cafile=str(STATE / "operator/ca-certificates.crt"))
        self._context.minimum_version = self._context.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def resumes(self) -> bool:
        """Whether the server knew the session of the connection before this one."""
        connection = self._context.wrap_socket(
            self._visitor.connect(5443), server_hostname=DOMAIN, session=self._session
        )
        with connection:
            connection.sendall(REQUEST)
            while connection.recv(65536):  # the tickets of TLS 1.3 come with what is read
                pass
            resumed = connection.session_reused or False
            if not resumed:
                self._session = connection.session
            return resumed


@pytest.fixture(params=VERSIONS)
def browser(request: pytest.FixtureRequest, operator: Visitor) -> Browser:
    browser = Browser(operator, VERSIONS[request.param])
    assert not browser.resumes()
    assert browser.resumes()
    return browser


def worker(cluster: Cluster) -> str:
    """The process of HAProxy's that serves."""
    command = ["socat", "-", "UNIX-CONNECT:/run/haproxy/admin.sock"]
    information = cluster.shell("load-balancer", *command, input="show info\n").stdout
    found = re.search(r"(?m)^Pid: (\d+)$", information)
    assert found, information
    return found[1]


def ticket_keys(cluster: Cluster) -> list[str]:
    return cluster.shell("load-balancer", "cat", "/run/haproxy-tls/ticket-keys").stdout.split()


def change_ticket_keys(cluster: Cluster) -> None:
    done = cluster.shell("load-balancer", "systemctl", "start", "haproxy-ticket-keys.service")
    assert done.status == 0, done.output


def test_a_session_resumes_after_a_reload(cluster: Cluster, browser: Browser) -> None:
    before = worker(cluster)
    text: str = cluster.outputs()["haproxy_cfg"]
    done = cluster.shell("load-balancer", f"{SCRIPTS}/apply-haproxy-config.sh", input=text)
    assert done.status == 0, done.output
    assert worker(cluster) != before
    assert browser.resumes()


def test_the_keys_of_tickets_pass_and_a_session_outlives_one_change_of_them_but_not_two(
    cluster: Cluster, browser: Browser
) -> None:
    before, serving = ticket_keys(cluster), worker(cluster)
    change_ticket_keys(cluster)
    after = ticket_keys(cluster)
    assert len(set(after)) == 3
    assert after[:2] == before[1:]
    assert browser.resumes()
    change_ticket_keys(cluster)
    assert not browser.resumes()
    assert browser.resumes()  # by a new ticket
    assert worker(cluster) == serving  # without a reload


def test_the_keys_of_tickets_change_twice_a_day_and_are_for_root_alone(cluster: Cluster) -> None:
    timer = cluster.shell("load-balancer", "systemctl", "show", "haproxy-ticket-keys.timer").stdout
    assert "\nActiveState=active\n" in timer
    assert "OnUnitActiveUSec=12h" in timer
    modes = cluster.shell(
        "load-balancer", "stat", "-c", "%a %U", "/run/haproxy-tls", "/run/haproxy-tls/ticket-keys"
    )
    assert modes.stdout == "700 root\n600 root\n"


@pytest.mark.parametrize("port", [443, 4444, 5443])
def test_http_2_is_spoken(cluster: Cluster, port: int) -> None:
    path = "/rest/v2/liveness" if port == 4444 else "/LiveApp/"
    form = "%{http_version} %{response_code}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", form, f"https://{DOMAIN}:{port}{path}"]
    assert cluster.must(*cluster.as_operator(*command)) == "2 200"


def test_without_a_choice_of_the_user_browsers_are_to_forget_strict_transport_security(
    visitor: Visitor,
) -> None:
    for place in (f"{DOMAIN}/LiveApp/", f"{DOMAIN}:5443/LiveApp/", f"{DOMAIN}:4444/"):
        assert visitor.get(f"https://{place}").header("Strict-Transport-Security") == "max-age=0", place
