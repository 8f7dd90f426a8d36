"""What a client says about itself, and what AMS and the client get to read."""

import contextlib
from http.client import RemoteDisconnected

import pytest

from tests.integration.haproxy.clients import CLIENT, HTTP2, WEBSOCKET, connect_tls, exchange, http, https
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
def test_what_a_client_claims_of_its_way_is_replaced_and_never_appended(
    balancer: Balancer, port: int
) -> None:
    seen = https(port, "/LiveApp/", FORGED).seen
    assert seen.all("X-Forwarded-For") == [CLIENT]
    assert seen.all("X-Forwarded-Proto") == ["https"]
    for name in ("Host", "Port", "By", "Prefix"):
        assert seen.all(f"X-Forwarded-{name}") == []
    for name in ("Forwarded", "X-Real-IP", "Proxy", "ClusterAuthorization"):
        assert seen.all(name) == []
    assert seen.all("X-Request-ID") != ["forged"]


@MEDIA_AND_PANEL
def test_without_any_claim_ams_learns_the_same(balancer: Balancer, port: int) -> None:
    seen = https(port, "/LiveApp/").seen
    assert (seen.all("X-Forwarded-For"), seen.all("X-Forwarded-Proto")) == ([CLIENT], ["https"])
    assert seen.all("Host") == [f"{DOMAIN}:{port}"]


def test_the_login_of_the_rest_api_passes(balancer: Balancer) -> None:
    seen = https(4444, "/rest/v2/version", "ProxyAuthorization: jwt\r\nAuthorization: Bearer x\r\n").seen
    assert (seen.all("ProxyAuthorization"), seen.all("Authorization")) == (["jwt"], ["Bearer x"])


@MEDIA_AND_PANEL
@pytest.mark.parametrize("protocol", ["h2c", "H2C", "websocket/h2c", "TLS/1.3"])
def test_no_upgrade_but_to_a_websocket(balancer: Balancer, port: int, protocol: str) -> None:
    """AMS says 101 to h2c, and what follows would be out of HAProxy's sight."""
    settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    response = https(
        port, "/LiveApp/", f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n{settings}"
    )
    assert response.status == 200
    assert response.seen.all("Upgrade") == response.seen.all("HTTP2-Settings") == []


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
def test_another_protocol_beside_a_websocket_never_arrives(
    balancer: Balancer, port: int, upgrade: str
) -> None:
    response = https(port, "/LiveApp/websocket", WEBSOCKET.replace("Upgrade: websocket", upgrade))
    seen = response.header("X-Seen-Upgrade") if response.status == 101 else response.seen.all("Upgrade")
    assert seen in ("websocket", [])


def test_h2_in_the_clear_inside_tls_is_no_request(balancer: Balancer) -> None:
    """Prior knowledge: bytes of HTTP/2 where HTTP/1.1 was agreed on."""
    with connect_tls(443, "http/1.1") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert not connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("spelling", ["websocket", "WebSocket"])
def test_a_websocket_upgrade_passes_however_it_is_spelled(balancer: Balancer, spelling: str) -> None:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/websocket HTTP/1.1\r\nHost: {DOMAIN}\r\n{WEBSOCKET.replace('websocket', spelling)}\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_a_request_within_a_request_is_not_smuggled(balancer: Balancer) -> None:
    """Two lengths: HAProxy goes by the chunks, and so must whoever comes after it."""
    smuggled = b"0\r\n\r\nGET /rest/v2/version HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"POST /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {len(smuggled)}\r\nTransfer-Encoding: chunked\r\n"
    with connect_tls(443) as connection:
        response = exchange(connection, head, smuggled)
        assert response.status == 400 or response.seen.all("Content-Length") == []


MEDIA_COOKIES = {443: "AMS_ORIGIN", 5443: "AMS_EDGE", 4444: "AMS_PANEL"}


@MEDIA_AND_PANEL
def test_a_client_stays_with_its_node_by_a_cookie_of_the_balancers_own(balancer: Balancer, port: int) -> None:
    response = https(port, "/LiveApp/streams/test0.ts")
    own = [cookie for cookie in response.all("Set-Cookie") if not cookie.startswith("JSESSIONID=")]
    assert len(own) == 1
    name, _, value = own[0].split(";")[0].partition("=")
    assert (name, value) == (MEDIA_COOKIES[port], response.node)
    assert {"httponly", "secure"} <= {part.strip().lower() for part in own[0].split(";")}
    assert "private" in (response.header("Cache-Control") or "")
    for _ in range(6):
        again = https(port, "/LiveApp/", f"Cookie: {name}={value}; JSESSIONID=abc\r\n")
        assert again.node == value
        assert again.seen.all("Cookie") == ["JSESSIONID=abc"]


def test_the_session_cookie_of_ams_is_left_alone(balancer: Balancer) -> None:
    """The guide prefixed it per pool, and one port's login overwrote another's."""
    response = https(4444, "/")
    sessions = [cookie for cookie in response.all("Set-Cookie") if cookie.startswith("JSESSIONID=")]
    assert sessions == [f"JSESSIONID={response.node}; Path=/; HttpOnly"]


def test_panel_and_media_ports_do_not_overwrite_each_others_node(balancer: Balancer) -> None:
    cookies = "Cookie: AMS_PANEL=origin2; AMS_ORIGIN=origin1; AMS_EDGE=edge2\r\n"
    for _ in range(4):
        assert [https(port, "/LiveApp/", cookies).node for port in (4444, 443, 5443)] == [
            "origin2",
            "origin1",
            "edge2",
        ]


def test_server_connections_are_shared_between_clients(balancer: Balancer) -> None:
    """The guide opened one for every request, which costs more than half of the requests per second."""
    before = sum(node.connections for node in balancer.nodes.values())
    for _ in range(40):
        assert https(443, "/LiveApp/").status == 200
    assert sum(node.connections for node in balancer.nodes.values()) - before < 20


def test_a_request_that_is_safe_to_repeat_is_sent_again_and_no_other(balancer: Balancer) -> None:
    nodes = balancer.nodes.values()
    for method, times in (("GET", 4), ("OPTIONS", 4), ("POST", 1), ("PUT", 1), ("DELETE", 1)):
        with contextlib.suppress(RemoteDisconnected):
            https(443, "/LiveApp/drop", method=method)
        assert sum(node.dropped.count(method) for node in nodes) == times


@MEDIA_AND_PANEL
def test_browsers_are_told_once_and_by_every_answer_how_long_to_insist_on_tls(
    balancer: Balancer, port: int
) -> None:
    """AMS's own word for it, for a year and every subdomain, comes with `/` of the panel."""
    statuses = set[int]()
    for target in ("/", "/LiveApp/", "/nothing", "/LiveApp/../"):
        response = https(port, target)
        statuses.add(response.status)
        assert response.all("Strict-Transport-Security") == [f"max-age={CLUSTER.hsts_max_age}"]
    assert statuses >= {200, 400}


def test_ports_that_take_plain_http_pin_nobody_to_tls(balancer: Balancer) -> None:
    for response in (http(80, "/"), http(5080, "/"), https(5080, "/"), http(6080, "/"), https(6080, "/")):
        assert response.header("Strict-Transport-Security") is None


def test_http2_requests_get_the_same_headers(balancer: Balancer) -> None:
    client = HTTP2(443)
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", DOMAIN), (":path", "/LiveApp/")]
    client.request([*pseudo, ("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")])
    assert client.status() == "200"
    body = client.read(0)
    assert CLIENT.encode() in body
    assert b"127.0.0.1" not in body
    client.close()
