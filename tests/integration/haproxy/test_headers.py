"""Headers of requests and responses: what AMS and clients receive."""

import contextlib
from http.client import RemoteDisconnected

import pytest

from tests.integration.haproxy.clients import (
    CLIENT,
    HTTP2,
    WEBSOCKET,
    connect_tls,
    request_http,
    request_https,
    send_request,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN

MEDIA_AND_PANEL = pytest.mark.parametrize("port", [443, 5443, 4444])

FORGED = "".join(
    f"{name}: {value}\r\n"
    for name, value in (
        ("X-Forwarded-For", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1, 10.1.2.3"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-By", "127.0.0.1"),
        ("X-Forwarded-Prefix", "/rest"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("Proxy", "http://evil.example"),
        ("ClusterAuthorization", "forged"),
        ("X-Request-ID", "forged"),
    )
)


@MEDIA_AND_PANEL
def test_forwarding_headers_of_clients_are_replaced(balancer: Balancer, port: int) -> None:
    received = request_https(port, "/LiveApp/", FORGED).received
    assert received.all("X-Forwarded-For") == [CLIENT]
    assert received.all("X-Forwarded-Proto") == ["https"]
    for name in ("Host", "Port", "By", "Prefix"):
        assert received.all(f"X-Forwarded-{name}") == []
    for name in ("Forwarded", "X-Real-IP", "Proxy", "ClusterAuthorization"):
        assert received.all(name) == []
    assert received.all("X-Request-ID") != ["forged"]


@MEDIA_AND_PANEL
def test_forwarding_headers_are_set_when_the_client_sends_none(balancer: Balancer, port: int) -> None:
    received = request_https(port, "/LiveApp/").received
    assert (received.all("X-Forwarded-For"), received.all("X-Forwarded-Proto")) == ([CLIENT], ["https"])
    assert received.all("Host") == [f"{DOMAIN}:{port}"]


def test_authorization_headers_pass(balancer: Balancer) -> None:
    received = request_https(
        4444, "/rest/v2/version", "ProxyAuthorization: jwt\r\nAuthorization: Bearer x\r\n"
    ).received
    assert (received.all("ProxyAuthorization"), received.all("Authorization")) == (["jwt"], ["Bearer x"])


@MEDIA_AND_PANEL
@pytest.mark.parametrize("protocol", ["h2c", "H2C", "websocket/h2c", "TLS/1.3"])
def test_upgrades_to_other_protocols_than_websocket_are_removed(
    balancer: Balancer, port: int, protocol: str
) -> None:
    """AMS accepts h2c, and HAProxy's rules would not apply to the requests in it."""
    settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    response = request_https(
        port, "/LiveApp/", f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n{settings}"
    )
    assert response.status == 200
    assert response.received.all("Upgrade") == response.received.all("HTTP2-Settings") == []


@MEDIA_AND_PANEL
@pytest.mark.parametrize(
    "upgrade",
    [
        "Upgrade: websocket, h2c",
        "Upgrade: h2c, websocket",
        "Upgrade: websocket\r\nUpgrade: h2c",
        "Upgrade: h2c\r\nUpgrade: websocket",
    ],
)
def test_protocols_listed_beside_websocket_are_removed(balancer: Balancer, port: int, upgrade: str) -> None:
    response = request_https(port, "/LiveApp/websocket", WEBSOCKET.replace("Upgrade: websocket", upgrade))
    upgrade_protocols = (
        response.header("X-Received-Upgrade") if response.status == 101 else response.received.all("Upgrade")
    )
    assert upgrade_protocols in ("websocket", [])


def test_http2_bytes_on_an_http1_connection_are_refused(balancer: Balancer) -> None:
    """HTTP/2 by prior knowledge, after TLS negotiated HTTP/1.1."""
    with connect_tls(443, "http/1.1") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert not connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("spelling", ["websocket", "WebSocket"])
def test_websocket_upgrade_is_case_insensitive(balancer: Balancer, spelling: str) -> None:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/websocket HTTP/1.1\r\nHost: {DOMAIN}\r\n{WEBSOCKET.replace('websocket', spelling)}\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_request_smuggling_fails(balancer: Balancer) -> None:
    """A request with Content-Length and Transfer-Encoding is refused, or the node gets only the latter."""
    smuggled = b"0\r\n\r\nGET /rest/v2/version HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {len(smuggled)}\r\nTransfer-Encoding: chunked\r\n"
    with connect_tls(443) as connection:
        response = send_request(connection, head, smuggled)
        assert response.status == 400 or response.received.all("Content-Length") == []


STICKY_COOKIES = {443: "AMS_ORIGIN", 5443: "AMS_EDGE", 4444: "AMS_PANEL"}


@MEDIA_AND_PANEL
def test_sticky_cookie_keeps_a_client_on_its_node(balancer: Balancer, port: int) -> None:
    response = request_https(port, "/LiveApp/rest/v2/version")
    (sticky,) = response.all("Set-Cookie")
    name, _, value = sticky.split(";")[0].partition("=")
    assert (name, value) == (STICKY_COOKIES[port], response.node)
    assert {"httponly", "secure"} <= {part.strip().lower() for part in sticky.split(";")}
    for _ in range(6):
        again = request_https(port, "/LiveApp/", f"Cookie: {name}={value}; JSESSIONID=abc\r\n")
        assert again.node == value
        assert again.received.all("Cookie") == ["JSESSIONID=abc"]


def test_session_cookie_of_ams_is_not_changed(balancer: Balancer) -> None:
    """The guide prefixes it with the node, so that the login on one port overwrites that of another."""
    response = request_https(4444, "/")
    sessions = [cookie for cookie in response.all("Set-Cookie") if cookie.startswith("JSESSIONID=")]
    assert sessions == [f"JSESSIONID={response.node}; Path=/; HttpOnly"]


def test_panel_and_media_ports_have_separate_sticky_cookies(balancer: Balancer) -> None:
    cookies = "Cookie: AMS_PANEL=origin2; AMS_ORIGIN=origin1; AMS_EDGE=edge2\r\n"
    for _ in range(4):
        assert [request_https(port, "/LiveApp/", cookies).node for port in (4444, 443, 5443)] == [
            "origin2",
            "origin1",
            "edge2",
        ]


def test_server_connections_are_shared_between_clients(balancer: Balancer) -> None:
    """The guide opens one for every request, at less than half of the requests per second."""
    before = sum(node.connections for node in balancer.nodes.values())
    for _ in range(40):
        assert request_https(443, "/LiveApp/").status == 200
    assert sum(node.connections for node in balancer.nodes.values()) - before < 20


def test_only_safe_methods_are_retried(balancer: Balancer) -> None:
    nodes = balancer.nodes.values()
    for method, attempts in (("GET", 6), ("OPTIONS", 6), ("POST", 1), ("PUT", 1), ("DELETE", 1)):
        with contextlib.suppress(RemoteDisconnected):
            request_https(443, "/LiveApp/drop", method=method)
        assert sum(node.dropped_methods.count(method) for node in nodes) == attempts


@MEDIA_AND_PANEL
def test_every_response_has_one_strict_transport_security_header(balancer: Balancer, port: int) -> None:
    """HAProxy's replaces the one that AMS sends with the panel, which lasts a year and includes subdomains."""
    statuses = set[int]()
    for target in ("/", "/LiveApp/", "/nothing", "/LiveApp/../"):
        response = request_https(port, target)
        statuses.add(response.status)
        assert response.all("Strict-Transport-Security") == [f"max-age={CLUSTER.hsts_max_age}"]
    assert statuses >= {200, 400}


def test_ports_with_plain_http_send_no_strict_transport_security(balancer: Balancer) -> None:
    for response in (
        request_http(80, "/"),
        request_http(5080, "/"),
        request_https(5080, "/"),
        request_http(6080, "/"),
        request_https(6080, "/"),
    ):
        assert response.header("Strict-Transport-Security") is None


def test_http2_requests_get_the_same_headers(balancer: Balancer) -> None:
    client = HTTP2(443)
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", DOMAIN), (":path", "/LiveApp/")]
    client.send_headers([*pseudo, ("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")])
    assert client.read_status() == "200"
    body = client.read_frame(0)
    assert CLIENT.encode() in body
    assert b"127.0.0.1" not in body
    client.close()
