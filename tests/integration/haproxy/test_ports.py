"""What answers on each port, and which nodes stand behind it."""

import base64
import time

import pytest

from cluster.haproxy_config import calculate_connection_limits
from tests.integration.haproxy.clients import (
    HTTP2,
    Response,
    connect,
    connect_tls,
    echoes,
    exchange,
    http,
    https,
    open_rtmp,
    open_websocket,
    read_response,
    tls_context,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.haproxy_process import DOMAIN, PASSWORD, USER


def nodes_behind(port: int, target: str) -> set[str]:
    return {https(port, target).node for _ in range(6)}


def statistics(target: str, password: str = PASSWORD) -> Response:
    credentials = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return https(6080, target, f"Authorization: Basic {credentials}\r\n")


@pytest.mark.parametrize("host", [DOMAIN, f"{DOMAIN}:80", f"{DOMAIN}:8080"])
def test_http_on_80_redirects_to_443_with_path_and_query(balancer: Balancer, host: str) -> None:
    response = http(80, "/LiveApp/a.html?id=1&x=2", host)
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}/LiveApp/a.html?id=1&x=2",
    )


@pytest.mark.parametrize("host", [DOMAIN, f"{DOMAIN}:5080"])
def test_http_on_5080_redirects_to_5443(balancer: Balancer, host: str) -> None:
    response = http(5080, "/LiveApp/a.html?id=1", host)
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}:5443/LiveApp/a.html?id=1",
    )


def test_https_on_5080_redirects_to_5443(balancer: Balancer) -> None:
    """Where a browser goes that knows the host by Strict-Transport-Security."""
    response = https(5080, "/LiveApp/a.html?id=1")
    assert (response.status, response.header("Location")) == (
        301,
        f"https://{DOMAIN}:5443/LiveApp/a.html?id=1",
    )


@pytest.mark.parametrize("port", [5080, 6080])
def test_tls_and_http_share_a_port_however_late_the_first_byte(balancer: Balancer, port: int) -> None:
    head = f"GET /haproxy_stats HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
    with connect(port) as plain, connect(port) as late:
        time.sleep(0.3)
        plain.sendall(head)
        assert read_response(plain).status == 301
        with tls_context().wrap_socket(late) as secured:
            secured.sendall(head)
            assert read_response(secured).status in (301, 401)


@pytest.mark.parametrize(("port", "location"), [(80, ""), (5080, ":5443"), (6080, ":6080")])
def test_a_client_that_names_no_host_is_sent_to_the_domain(
    balancer: Balancer, port: int, location: str
) -> None:
    assert http(port, "/x", host=None).header("Location") == f"https://{DOMAIN}{location}/x"


def test_the_acme_challenge_goes_to_certbot_and_is_not_redirected(balancer: Balancer) -> None:
    challenge = "/.well-known/acme-challenge/token"
    assert http(80, challenge).status == 503
    certbot = Node("certbot", "127.0.0.1", http=8888, rtmp=None)
    try:
        response = http(80, challenge)
        assert (response.status, response.node, response.seen.target) == (200, "certbot", challenge)
    finally:
        certbot.stop()


def test_443_is_served_by_origins_and_by_edges_on_request(balancer: Balancer) -> None:
    assert nodes_behind(443, "/LiveApp/") == {"origin1", "origin2"}
    assert nodes_behind(443, "/LiveApp/?target=origin") == {"origin1", "origin2"}
    assert nodes_behind(443, "/LiveApp/?id=1&target=edge") == {"edge1", "edge2"}


def test_5443_is_served_by_edges_and_by_origins_on_request(balancer: Balancer) -> None:
    assert nodes_behind(5443, "/LiveApp/") == {"edge1", "edge2"}
    assert nodes_behind(5443, "/LiveApp/?target=edge") == {"edge1", "edge2"}
    assert nodes_behind(5443, "/LiveApp/?id=1&target=origin") == {"origin1", "origin2"}


def test_a_websocket_reaches_the_node_that_its_target_names(balancer: Balancer) -> None:
    for port, target, role in ((443, "", "origin"), (443, "?target=edge", "edge"), (5443, "", "edge")):
        connection, node = open_websocket(port, f"/LiveApp/websocket{target}")
        with connection:
            assert node.rstrip("12") == role
            assert echoes(connection)


def test_a_websocket_opens_over_http2_as_browsers_do(balancer: Balancer) -> None:
    client = HTTP2(443)
    pseudo = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": DOMAIN}
    client.request(
        [*pseudo.items(), (":path", "/LiveApp/websocket?target=edge"), ("sec-websocket-version", "13")],
        end=False,
    )
    assert client.status() == "200"
    assert client.read(0).startswith(b"edge")
    client.send(b"ping")
    assert client.read(0) == b"ping"
    client.close()


def test_rtmp_reaches_origins_only(balancer: Balancer) -> None:
    names: set[str] = set()
    for _ in range(6):
        connection, node = open_rtmp()
        with connection:
            assert echoes(connection)
            names.add(node)
    assert names == {"origin1", "origin2"}


def test_what_is_not_rtmp_never_reaches_a_node_on_1935(balancer: Balancer) -> None:
    with connect(1935) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""


def test_the_panel_answers_on_4444_from_origins_only(balancer: Balancer) -> None:
    for target in ("/", "/rest/v2/version", "/LiveApp/play.html", "/LiveApp/?target=edge"):
        assert nodes_behind(4444, target) == {"origin1", "origin2"}


@pytest.mark.parametrize("port", [443, 5443])
@pytest.mark.parametrize(
    "target", ["/", "/rest/v2/users/initial", "/rest/v2/liveness", "/openapi", "/LiveApp2/", "/liveapp/"]
)
def test_media_ports_serve_applications_and_nothing_else(balancer: Balancer, port: int, target: str) -> None:
    assert https(port, target).status == 404
    assert https(port, f"/LiveApp/rest/x?_path={target}").status == 200


@pytest.mark.parametrize("application", ["LiveApp", "WebRTCAppEE", "live"])
def test_an_application_is_served_with_and_without_its_slash(balancer: Balancer, application: str) -> None:
    assert https(443, f"/{application}").status == https(5443, f"/{application}/a/b").status == 200


def test_statistics_ask_for_the_password_over_tls(balancer: Balancer) -> None:
    for target in ("/haproxy_stats", "/haproxy_stats;csv", "/metrics", "/metrics/node", "/"):
        response = https(6080, target)
        assert (response.status, response.header("WWW-Authenticate")) == (
            401,
            'Basic realm="Haproxy Statistics"',
        )
        assert statistics(target, "wrong").status == 401
    page = statistics("/haproxy_stats")
    assert page.status == 200
    assert b"origin2" in page.body
    assert b"3.0." not in page.body
    assert statistics("/").header("Location") == "/haproxy_stats"
    assert statistics("/rest/v2/liveness").status == 404


def test_prometheus_finds_its_metrics_beside_the_statistics(balancer: Balancer) -> None:
    metrics = statistics("/metrics")
    assert metrics.status == 200
    assert b'haproxy_server_status{proxy="edges",server="edge1",state="UP"} 1' in metrics.body


def test_the_balancers_own_metrics_are_beside_them(balancer: Balancer) -> None:
    assert statistics("/metrics/node").status == 503
    exporter = Node("exporter", "127.0.0.1", http=9100, rtmp=None)
    try:
        seen = statistics("/metrics/node").seen
        assert (seen.node, seen.target, seen.all("Authorization")) == ("exporter", "/metrics", [])
        assert https(6080, "/metrics/node").status == 401
        assert statistics("/metrics/nodes").status == 404
    finally:
        exporter.stop()


def test_the_guides_plain_statistics_address_redirects_to_tls(balancer: Balancer) -> None:
    response = http(6080, "/haproxy_stats", f"{DOMAIN}:6080")
    assert (response.status, response.header("Location")) == (301, f"https://{DOMAIN}:6080/haproxy_stats")


@pytest.mark.parametrize("port", [5080, 6080])
def test_what_is_neither_tls_nor_http_is_turned_away(balancer: Balancer, port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"\x00\x01\x02\x03 and more, none of it of use\r\n\r\n")
        assert connection.recv(1) == b""


def test_the_process_has_the_connections_and_files_that_the_file_says(balancer: Balancer) -> None:
    limits = calculate_connection_limits(CLUSTER.memory_mib)
    info = dict(
        line.split(": ", 1) for line in balancer.haproxy.ask("show info").splitlines() if ": " in line
    )
    assert (int(info["Maxconn"]), int(info["Ulimit-n"])) == (limits.maxconn, limits.ulimit_n)
    assert int(info["Maxsock"]) <= limits.ulimit_n


def test_keep_alive_serves_many_requests_on_one_connection(balancer: Balancer) -> None:
    with connect_tls(443) as connection:
        head = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n"
        assert [exchange(connection, head).status for _ in range(5)] == [200] * 5
