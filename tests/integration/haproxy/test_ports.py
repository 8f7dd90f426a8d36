"""The responses of each port, and the nodes that serve it."""

import base64
import socket
import time
from collections.abc import Callable

import pytest

from cluster.haproxy_config import calculate_connection_limits
from tests.integration.haproxy.clients import (
    CLIENT,
    HTTP2,
    STRANGER,
    WEBSOCKET,
    Response,
    connect,
    connect_tls,
    echoes,
    open_rtmp,
    open_websocket,
    read_response,
    request_http,
    request_https,
    send_request,
    tls_context,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import DOMAIN, PASSWORD, USER


def responding_nodes(port: int, target: str) -> set[str]:
    return {request_https(port, target).node for _ in range(6)}


def request_statistics(target: str, password: str = PASSWORD) -> Response:
    credentials = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return request_https(6080, target, f"Authorization: Basic {credentials}\r\n")


@pytest.mark.parametrize("host", [DOMAIN, f"{DOMAIN}:80", f"{DOMAIN}:8080"])
def test_http_on_80_redirects_to_443_with_path_and_query(balancer: Balancer, host: str) -> None:
    response = request_http(80, "/LiveApp/a.html?id=1&x=2", host)
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}/LiveApp/a.html?id=1&x=2",
    )


@pytest.mark.parametrize("host", [DOMAIN, f"{DOMAIN}:5080"])
def test_http_on_5080_redirects_to_5443(balancer: Balancer, host: str) -> None:
    response = request_http(5080, "/LiveApp/a.html?id=1", host)
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}:5443/LiveApp/a.html?id=1",
    )


def test_https_on_5080_redirects_to_5443(balancer: Balancer) -> None:
    """Browsers that know the host's Strict-Transport-Security use https on this port."""
    response = request_https(5080, "/LiveApp/a.html?id=1")
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}:5443/LiveApp/a.html?id=1",
    )


@pytest.mark.parametrize("port", [5080, 6080])
def test_tls_and_http_share_a_port_also_for_slow_clients(balancer: Balancer, port: int) -> None:
    head = f"GET /haproxy_stats HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
    with connect(port) as plain, connect(port) as late:
        time.sleep(0.3)
        plain.sendall(head)
        assert read_response(plain).status == 301
        with tls_context().wrap_socket(late) as secured:
            secured.sendall(head)
            assert read_response(secured).status in (301, 401)


@pytest.mark.parametrize(("port", "location"), [(80, ""), (5080, ":5443"), (6080, ":6080")])
def test_request_without_host_redirects_to_the_domain(balancer: Balancer, port: int, location: str) -> None:
    assert request_http(port, "/x", host=None).header("Location") == f"https://{DOMAIN}{location}/x"


def test_acme_challenge_reaches_certbot_without_redirect(balancer: Balancer) -> None:
    challenge = "/.well-known/acme-challenge/token"
    assert request_http(80, challenge).status == 503
    certbot = Node("certbot", "127.0.0.1", http=8888, rtmp=None)
    try:
        response = request_http(80, challenge)
        assert (response.status, response.node, response.received.target) == (200, "certbot", challenge)
    finally:
        certbot.stop()


def test_443_is_served_by_origins_or_by_edges_with_target_edge(balancer: Balancer) -> None:
    assert responding_nodes(443, "/LiveApp/") == {"origin1", "origin2"}
    assert responding_nodes(443, "/LiveApp/?target=origin") == {"origin1", "origin2"}
    assert responding_nodes(443, "/LiveApp/?id=1&target=edge") == {"edge1", "edge2"}


def test_5443_is_served_by_edges_or_by_origins_with_target_origin(balancer: Balancer) -> None:
    assert responding_nodes(5443, "/LiveApp/") == {"edge1", "edge2"}
    assert responding_nodes(5443, "/LiveApp/?target=edge") == {"edge1", "edge2"}
    assert responding_nodes(5443, "/LiveApp/?id=1&target=origin") == {"origin1", "origin2"}


def test_websocket_reaches_the_role_of_its_target(balancer: Balancer) -> None:
    for port, target, role in ((443, "", "origin"), (443, "?target=edge", "edge"), (5443, "", "edge")):
        connection, node = open_websocket(port, f"/LiveApp/websocket{target}")
        with connection:
            assert node.rstrip("12") == role
            assert echoes(connection)


def test_websocket_opens_over_http2(balancer: Balancer) -> None:
    client = HTTP2(443)
    pseudo = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": DOMAIN}
    client.send_headers(
        [*pseudo.items(), (":path", "/LiveApp/websocket?target=edge"), ("sec-websocket-version", "13")],
        end_stream=False,
    )
    assert client.read_status() == "200"
    assert client.read_frame(0).startswith(b"edge")
    client.send_data(b"ping")
    assert client.read_frame(0) == b"ping"
    client.close()


@pytest.mark.parametrize("port", [1935, 1936])
def test_rtmp_reaches_origins_only(balancer: Balancer, port: int) -> None:
    names: set[str] = set()
    for _ in range(6):
        connection, node = open_rtmp(port)
        with connection:
            assert echoes(connection)
            names.add(node)
    assert names == {"origin1", "origin2"}


@pytest.mark.parametrize("open_connection", [lambda: connect(1935), lambda: connect_tls(1936)])
def test_other_protocols_on_the_rtmp_ports_are_rejected(
    balancer: Balancer, open_connection: Callable[[], socket.socket]
) -> None:
    with open_connection() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""


def test_panel_on_4444_is_served_by_origins_only(balancer: Balancer) -> None:
    for target in (
        "/",
        "/rest/v2/version",
        "/LiveApp/rest/v2/version",
        "/new/play.html",
        "/LiveApp/?target=edge",
    ):
        assert responding_nodes(4444, target) == {"origin1", "origin2"}


@pytest.mark.parametrize("source", [CLIENT, STRANGER])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/LiveApp/play.html?id=1&token=a%2Fb", "/live/streams/vod%201.mp4"])
def test_link_that_the_panel_makes_leads_to_5443(
    balancer: Balancer, source: str, method: str, target: str
) -> None:
    response = request_https(4444, target, method=method, source=source)
    assert (response.status, response.header("Location")) == (302, f"https://{DOMAIN}:5443{target}")
    # A player on another site may follow it.
    assert response.all("Access-Control-Allow-Origin") == ["*"]
    assert request_https(5443, target, method=method, source=source).status == 200


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/", "GET"),
        ("/rest/v2/users/initial", "POST"),
        ("/rest/v2/liveness", "GET"),
        ("/LiveApp/", "GET"),
        ("/LiveApp/rest/v2/broadcasts/create", "POST"),
        ("/LiveApp/streams/x.mp4", "POST"),
        ("/LiveApp/whip/stream", "POST"),
        ("/new/play.html", "GET"),
        ("/play.html/streams/", "GET"),
    ],
)
def test_panel_is_refused_to_everybody_but_administrators(
    balancer: Balancer, target: str, method: str
) -> None:
    headers = f"X-Forwarded-For: {CLIENT}\r\nForwarded: for={CLIENT}\r\n"
    assert request_https(4444, target, headers, method, source=STRANGER).status == 403
    assert request_https(4444, target, method=method).status in (200, 201)


def test_websocket_on_the_panel_port_is_refused_to_everybody_but_administrators(balancer: Balancer) -> None:
    assert request_https(4444, "/LiveApp/websocket", WEBSOCKET, source=STRANGER).status == 403
    connection, node = open_websocket(4444, "/LiveApp/websocket")
    with connection:
        assert node.startswith("origin")


@pytest.mark.parametrize("port", [443, 5443])
@pytest.mark.parametrize(
    "target", ["/", "/rest/v2/users/initial", "/rest/v2/liveness", "/openapi", "/LiveApp2/", "/liveapp/"]
)
def test_media_ports_serve_only_applications(balancer: Balancer, port: int, target: str) -> None:
    assert request_https(port, target).status == 404
    assert request_https(port, f"/LiveApp/rest/x?_path={target}").status == 200


@pytest.mark.parametrize("application", ["LiveApp", "WebRTCAppEE", "live"])
def test_application_is_served_with_and_without_trailing_slash(balancer: Balancer, application: str) -> None:
    assert (
        request_https(443, f"/{application}").status
        == request_https(5443, f"/{application}/a/b").status
        == 200
    )


def test_statistics_require_password_over_tls(balancer: Balancer) -> None:
    for target in ("/haproxy_stats", "/haproxy_stats;csv", "/metrics", "/metrics/node", "/"):
        response = request_https(6080, target)
        assert (response.status, response.header("WWW-Authenticate")) == (
            401,
            'Basic realm="Haproxy Statistics"',
        )
        assert request_statistics(target, "wrong").status == 401
    page = request_statistics("/haproxy_stats")
    assert page.status == 200
    assert b"origin2" in page.body
    assert b"3.0." not in page.body
    assert request_statistics("/").header("Location") == "/haproxy_stats"
    assert request_statistics("/rest/v2/liveness").status == 404


def test_haproxy_metrics_are_on_the_statistics_port(balancer: Balancer) -> None:
    metrics = request_statistics("/metrics")
    assert metrics.status == 200
    assert b'haproxy_server_status{proxy="edges",server="edge1",state="UP"} 1' in metrics.body


def test_node_exporter_metrics_are_on_the_statistics_port(balancer: Balancer) -> None:
    assert request_statistics("/metrics/node").status == 503
    exporter = Node("exporter", "127.0.0.1", http=9100, rtmp=None)
    try:
        received = request_statistics("/metrics/node").received
        assert (received.node, received.target, received.all("Authorization")) == ("exporter", "/metrics", [])
        assert request_https(6080, "/metrics/node").status == 401
        # They exist only with `monitoringCidrs`.
        for target in ("nodes", "targets", "node/origin1", "ant-media/origin1"):
            assert request_statistics(f"/metrics/{target}").status == 404
    finally:
        exporter.stop()


def test_http_statistics_address_of_the_guide_redirects_to_tls(balancer: Balancer) -> None:
    response = request_http(6080, "/haproxy_stats", f"{DOMAIN}:6080")
    assert (response.status, response.header("Location")) == (301, f"https://{DOMAIN}:6080/haproxy_stats")


@pytest.mark.parametrize("port", [5080, 6080])
def test_neither_tls_nor_http_is_rejected(balancer: Balancer, port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\x00\x01\x02\x03 neither TLS nor HTTP\r\n\r\n")
        assert connection.recv(1) == b""


def test_process_has_the_configured_connection_and_file_limits(balancer: Balancer) -> None:
    limits = calculate_connection_limits(CLUSTER.memory_mib)
    info = dict(
        line.split(": ", 1) for line in balancer.haproxy.ask("show info").splitlines() if ": " in line
    )
    assert (int(info["Maxconn"]), int(info["Ulimit-n"])) == (limits.maxconn, limits.ulimit_n)
    assert int(info["Maxsock"]) <= limits.ulimit_n


def test_keep_alive_serves_several_requests_on_one_connection(balancer: Balancer) -> None:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n"
        assert [send_request(connection, head).status for _ in range(5)] == [200] * 5
