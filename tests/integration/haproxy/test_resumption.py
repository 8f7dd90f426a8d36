"""TLS session resumption across reloads and rotations of the ticket keys."""

import ssl
from pathlib import Path

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import connect, send_request, tls_context
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN
from tests.integration.haproxy.test_tls import TLS_PORTS

KEYS = "run/haproxy-tls/ticket-keys"


class Browser:
    """A client with one version of TLS that offers the session of its first connection to each port."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self._context = tls_context()
        self._context.minimum_version = self._context.maximum_version = version
        self._sessions: dict[int, ssl.SSLSession | None] = {}

    def resumes(self, port: int) -> bool:
        session = self._sessions.get(port)
        with (
            connect(port) as plain,
            self._context.wrap_socket(plain, server_hostname=DOMAIN, session=session) as connection,
        ):
            # TLS 1.3 sends session tickets after the handshake.
            send_request(connection, f"GET / HTTP/1.1\r\nHost: {DOMAIN}\r\n")
            self._sessions.setdefault(port, connection.session)
            return bool(connection.session_reused)

    def resumes_everywhere(self) -> set[bool]:
        return {self.resumes(port) for port in TLS_PORTS}


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def browser(request: pytest.FixtureRequest) -> Browser:
    browser = Browser(request.param)
    assert browser.resumes_everywhere() == {False}
    return browser


def rotate_ticket_keys(balancer: Balancer) -> None:
    rotation = balancer.haproxy.rotate_ticket_keys()
    assert (rotation.returncode, rotation.stdout, rotation.stderr) == (0, "", "")


def read_loaded_keys(balancer: Balancer) -> list[str]:
    answer = balancer.haproxy.ask("show tls-keys *").splitlines()
    return [line.split()[1] for line in answer if line.startswith("0.")]


def key_file(balancer: Balancer) -> Path:
    return balancer.haproxy.root / KEYS


def test_session_resumes_on_every_port_before_and_after_a_reload(
    balancer: Balancer, browser: Browser
) -> None:
    assert browser.resumes_everywhere() == {True}
    balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
    assert browser.resumes_everywhere() == {True}


def test_session_survives_one_key_rotation_and_not_three(balancer: Balancer, browser: Browser) -> None:
    rotate_ticket_keys(balancer)
    assert browser.resumes_everywhere() == {True}
    balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
    assert browser.resumes_everywhere() == {True}
    rotate_ticket_keys(balancer)
    rotate_ticket_keys(balancer)
    assert browser.resumes_everywhere() == {False}


def test_rotation_replaces_the_oldest_key_in_file_and_haproxy(
    balancer: Balancer,
) -> None:
    for _ in range(4):
        before = key_file(balancer).read_text().splitlines()
        rotate_ticket_keys(balancer)
        after = key_file(balancer).read_text().splitlines()
        assert len(set(after)) == 3
        assert after[:2] == before[1:]
        assert read_loaded_keys(balancer) == after


def test_reload_during_a_rotation_ends_with_the_keys_of_the_file(balancer: Balancer) -> None:
    """Simulates the reload by writing the previous file back."""
    file = key_file(balancer)
    before = file.read_text()
    rotate_ticket_keys(balancer)
    file.write_text(before)
    rotate_ticket_keys(balancer)
    assert read_loaded_keys(balancer) == file.read_text().splitlines()


def test_only_root_can_read_the_keys(balancer: Balancer) -> None:
    file = key_file(balancer)
    for path, mode in ((file, 0o100600), (file.parent, 0o040700)):
        assert (path.stat().st_mode, path.stat().st_uid) == (mode, 0)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_rejected_keys_report_haproxys_error(balancer: Balancer) -> None:
    file = key_file(balancer)
    good = file.read_text()
    file.write_text("no key\n")
    rotation = balancer.haproxy.rotate_ticket_keys()
    file.write_text(good)
    assert rotation.returncode == 1
    assert rotation.stderr.startswith(
        f"HAProxy did not accept the new ticket keys from /{KEYS}. HAProxy reports:\n'set ssl tls-key' received"
    )
