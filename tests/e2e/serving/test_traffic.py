"""Publishing, playback and administration through every port of the load balancer."""

import re
import ssl

import pytest

from sandbox.cloud import addresses
from tests.e2e.clients import Client, Response, SandboxInternet, basic_auth_header
from tests.e2e.cluster_certificate import TLS_PORTS
from tests.e2e.conftest import Startup
from tests.e2e.node_registry import all_alive, wait_until_registered
from tests.e2e.running_cluster import DOMAIN, Cluster, running_process, wait_until
from tests.e2e.streams import probe_stream, publishing, wait_for_stream


def list_host_names(cluster: Cluster, role: str) -> set[str]:
    return {machine.hostname for name, machine in cluster.list_machines().items() if name.startswith(role)}


@pytest.fixture(scope="module")
def origins(cluster: Cluster) -> set[str]:
    return list_host_names(cluster, "origin")


@pytest.fixture(scope="module")
def edges(cluster: Cluster) -> set[str]:
    return list_host_names(cluster, "edge")


def test_rtmps_stream_plays_as_hls_from_edges_on_5443_and_from_origins_on_443(
    cluster: Cluster, operator_client: Client, host_client: Client, origins: set[str], edges: set[str]
) -> None:
    with publishing(cluster, "e2e", tls=True):
        wait_for_stream(operator_client, "e2e")
        for port, nodes in ((5443, edges), (443, origins)):
            base = f"https://{DOMAIN}:{port}/LiveApp/streams"
            found = probe_stream(cluster, f"{base}/e2e.m3u8")
            assert found["video"]["codec_name"] == "h264"
            assert found["video"]["width"] == 160
            assert found["audio"]["codec_name"] == "aac"
            for client in (operator_client, host_client):
                response = client.get(f"{base}/e2e.m3u8")
                segment = client.get(f"{base}/{re.findall(r'(?m)^[^#].*$', response.body.decode())[-1]}")
                assert {response.node, segment.node} <= nodes
                assert segment.status == 200
                # Each packet of an MPEG transport stream has 188 bytes and begins with 0x47.
                assert segment.body[:1] == segment.body[188:189] == b"\x47"


def test_commands_printed_by_make_up_work(startup: Startup, cluster: Cluster, host_client: Client) -> None:
    publish, watch, statistics = re.findall(r"(?m)^  ((?:ffmpeg|curl) .*)$", startup.up.stdout)
    with running_process(["bash", "-c", f"exec {publish}"]):
        wait_for_stream(host_client, "test", segments=3)
        watched = cluster.run("bash", "-c", watch)
        watched.check()
        assert "time=00:00:0" in watched.output or "time=00:00:1" in watched.output
    assert "Statistics Report" in cluster.check_output("bash", "-c", statistics)


def test_target_parameter_selects_origins_or_edges(
    client: Client, origins: set[str], edges: set[str]
) -> None:
    for place, nodes in {
        f"{DOMAIN}/LiveApp/websocket": origins,
        f"{DOMAIN}/LiveApp/websocket?target=edge": edges,
        f"{DOMAIN}:5443/LiveApp/websocket": edges,
        f"{DOMAIN}:5443/LiveApp/websocket?target=origin": origins,
    }.items():
        websocket = client.open_websocket(f"https://{place}")
        assert websocket.node in nodes, place
        assert websocket.responds_to_ping()
        websocket.close()


@pytest.mark.parametrize("port", TLS_PORTS)
def test_certificate_is_issued_by_pebble_and_valid_only_with_its_ca_and_for_the_domain(
    client: Client, port: int
) -> None:
    with client.connect_tls(port, DOMAIN) as connection:
        certificate = connection.getpeercert() or {}
        assert ("DNS", DOMAIN) in tuple(certificate["subjectAltName"])
        assert "Pebble Intermediate" in str(certificate["issuer"])
        assert connection.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect_tls(port, DOMAIN, ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect_tls(port, f"other.{DOMAIN}")


def test_http_on_80_redirects_to_443_and_on_5080_to_5443(client: Client) -> None:
    target = "/LiveApp/play.html?id=stream1&token=a%2Fb"
    assert client.get(f"http://{DOMAIN}{target}").redirect == (301, f"https://{DOMAIN}{target}")
    assert client.get(f"http://{DOMAIN}:5080{target}").redirect == (301, f"https://{DOMAIN}:5443{target}")
    assert client.get(f"http://{DOMAIN}/").redirect == (301, f"https://{DOMAIN}/")
    assert client.get(f"http://{DOMAIN}:5080/").redirect == (301, f"https://{DOMAIN}:5443/")


def test_acme_challenges_on_80_are_forwarded_to_certbot(client: Client) -> None:
    # certbot listens only while it requests a certificate, so HAProxy finds no server.
    assert client.get(f"http://{DOMAIN}/.well-known/acme-challenge/token").status == 503


def test_panel_and_management_rest_api_respond_on_4444(client: Client, origins: set[str]) -> None:
    page = client.get(f"https://{DOMAIN}:4444/")
    assert (page.status, page.node in origins) == (200, True)
    assert b"Web panel" in page.body
    assert client.get(f"https://{DOMAIN}:4444/rest/v2/liveness").status == 200


def test_link_that_the_panel_makes_plays_for_viewers_and_nodes(
    cluster: Cluster, internet: SandboxInternet, operator_client: Client, edges: set[str]
) -> None:
    balancer = cluster.list_machines()["load-balancer"]
    stranger = Client(lambda port: internet.connect(balancer.public_address, port, addresses.STRANGER))
    assert stranger.get(f"https://{DOMAIN}:4444/").status == 403
    assert stranger.get(f"https://{DOMAIN}:4444/rest/v2/liveness").status == 403
    # The administrator gets the same as everyone.
    for client in (stranger, operator_client):
        status, embedded = client.get(f"https://{DOMAIN}:4444/LiveApp/play.html?id=link").redirect
        assert (status, embedded) == (302, f"https://{DOMAIN}:5443/LiveApp/play.html?id=link")
    with publishing(cluster, "link"):
        wait_for_stream(operator_client, "link")
        _, media = stranger.get(f"https://{DOMAIN}:4444/LiveApp/streams/link.m3u8").redirect
        assert stranger.get(str(media)).node in edges
        # As Ant Media Server fetches the VoD of a playlist: from the node's public address.
        fetch = (
            "curl",
            "--insecure",
            "--silent",
            "--fail",
            "--location",
            "--write-out",
            "%{url_effective}\n",
        )
        fetched = cluster.run_on(
            "origin2", *fetch, f"https://{DOMAIN}:4444/LiveApp/streams/link.m3u8"
        ).check()
        assert fetched.startswith("#EXTM3U")
        assert fetched.splitlines()[-1] == f"https://{DOMAIN}:5443/LiveApp/streams/link.m3u8"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "index.html",
        "rest/v2/liveness",
        "rest/v2/users/initial",
        "/rest/v2/liveness",
        "LiveApp//../rest/v2/liveness",
        "LiveApp/../rest/v2/liveness",
        "LiveApp/..;/rest/v2/liveness",
        "LiveApp/..;x=y/rest/v2/liveness",
        "LiveApp/%2e%2e/rest/v2/liveness",
        "LiveApp/%2E%2e;/rest/v2/liveness",
        "LiveApp/..%2frest/v2/liveness",
        "LiveApp/..%5crest/v2/liveness",
        "LiveApp/%252e%252e/rest/v2/liveness",
        "LiveApp;/../rest/v2/liveness",
        ";/rest/v2/liveness",
        "./rest/v2/liveness",
        "%72est/v2/liveness",
        "root/rest/v2/liveness",
    ],
)
@pytest.mark.parametrize("port", [443, 5443])
def test_media_ports_never_serve_the_panel(client: Client, port: int, path: str) -> None:
    response = client.get(f"https://{DOMAIN}:{port}/{path}")
    assert response.status in (400, 404)
    assert response.node is None  # HAProxy itself refused


@pytest.mark.parametrize("path", ["haproxy_stats", "haproxy_stats;csv", "metrics"])
def test_statistics_and_metrics_require_the_password(cluster: Cluster, client: Client, path: str) -> None:
    def request(headers: str = "") -> Response:
        return client.get(f"https://{DOMAIN}:6080/{path}", headers)

    password = cluster.get_config("statisticsPassword")
    assert request().status == 401
    assert request(basic_auth_header("admin", "wrong")).status == 401
    assert request(basic_auth_header("admin", "")).status == 401
    assert request(basic_auth_header("somebody", password)).status == 401
    response = request(basic_auth_header("admin", password))
    assert response.status == 200
    for server in ("origin1", "origin2", "edge1", "edge2"):
        assert server.encode() in response.body
    if path == "metrics":
        # HAProxy may find it down for a moment.
        up = b'haproxy_server_status{proxy="edges",server="edge1",state="UP"} 1'
        wait_until(lambda: up in request(basic_auth_header("admin", password)).body)


def test_http_on_6080_redirects_to_https(client: Client) -> None:
    for path in ("haproxy_stats", "metrics"):
        response = client.get(f"http://{DOMAIN}:6080/{path}")
        assert response.redirect == (301, f"https://{DOMAIN}:6080/{path}")


def test_panel_administrator_sees_every_node_in_the_registry(cluster: Cluster, client: Client) -> None:
    expected = all_alive(cluster.list_machines())
    assert len(expected) == 4
    wait_until_registered(cluster, client, expected)


def test_registry_requires_a_login(client: Client) -> None:
    assert client.get(f"https://{DOMAIN}:4444/rest/v2/cluster/nodes/0/50").status == 403
