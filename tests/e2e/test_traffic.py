"""Publishing, playing and administering, through every port of the load balancer."""

import base64
import hashlib
import json
import re
import ssl

import pytest

from tests.e2e.clients import Answer, Visitor
from tests.e2e.conftest import Start
from tests.e2e.running_cluster import DOMAIN, Cluster, running
from tests.e2e.streams import probe, publisher, wait_for

TLS_PORTS = (443, 4444, 5443, 6080)


def host_names(cluster: Cluster, role: str) -> set[str]:
    return {machine.hostname for name, machine in cluster.machines().items() if name.startswith(role)}


@pytest.fixture(scope="module")
def origins(cluster: Cluster) -> set[str]:
    return host_names(cluster, "origin")


@pytest.fixture(scope="module")
def edges(cluster: Cluster) -> set[str]:
    return host_names(cluster, "edge")


def test_what_rtmp_brings_in_plays_as_hls_from_edges_on_5443_and_from_origins_on_443(
    cluster: Cluster, operator: Visitor, this_host: Visitor, origins: set[str], edges: set[str]
) -> None:
    with publisher(cluster, "e2e"):
        wait_for(operator, "e2e")
        for port, nodes in ((5443, edges), (443, origins)):
            base = f"https://{DOMAIN}:{port}/LiveApp/streams"
            found = probe(cluster, f"{base}/e2e.m3u8")
            assert found["video"]["codec_name"] == "h264"
            assert found["video"]["width"] == 160
            assert found["audio"]["codec_name"] == "aac"
            for visitor in (operator, this_host):
                answer = visitor.get(f"{base}/e2e.m3u8")
                segment = visitor.get(f"{base}/{re.findall(r'(?m)^[^#].*$', answer.body.decode())[-1]}")
                assert {answer.node, segment.node} <= nodes
                assert segment.status == 200
                assert (
                    segment.body[:1] == segment.body[188:189] == b"\x47"
                )  # MPEG-TS: each packet's first byte


def test_the_three_commands_that_make_up_prints_work_as_printed(
    start: Start, cluster: Cluster, this_host: Visitor
) -> None:
    publish, watch, statistics = re.findall(r"(?m)^  ((?:ffmpeg|curl) .*)$", start.up.stdout)
    with running(["bash", "-c", f"exec {publish}"]):
        wait_for(this_host, "test", segments=3)
        seen = cluster.run("bash", "-c", watch, timeout=30)
        assert seen.status == 0, seen.output
        assert "time=00:00:0" in seen.output or "time=00:00:1" in seen.output
    page = cluster.run("bash", "-c", statistics)
    assert page.status == 0
    assert "Statistics Report" in page.stdout


def test_a_websocket_is_taken_where_its_target_says(
    visitor: Visitor, origins: set[str], edges: set[str]
) -> None:
    for place, nodes in {
        f"{DOMAIN}/LiveApp/websocket": origins,
        f"{DOMAIN}/LiveApp/websocket?target=edge": edges,
        f"{DOMAIN}:5443/LiveApp/websocket": edges,
        f"{DOMAIN}:5443/LiveApp/websocket?target=origin": origins,
    }.items():
        connection = visitor.open_websocket(f"https://{place}")
        assert connection.node in nodes, place
        assert connection.answers()
        connection.close()


@pytest.mark.parametrize("port", TLS_PORTS)
def test_the_certificate_is_one_that_pebble_issued_and_only_its_trust_accepts(
    visitor: Visitor, port: int
) -> None:
    with visitor.connect_tls(port, DOMAIN) as connection:
        certificate = connection.getpeercert() or {}
        assert ("DNS", DOMAIN) in tuple(certificate["subjectAltName"])
        assert "Pebble Intermediate" in str(certificate["issuer"])
        assert connection.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        visitor.connect_tls(port, DOMAIN, ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        visitor.connect_tls(port, f"other.{DOMAIN}")


def test_http_on_80_redirects_to_443_and_on_5080_to_5443(visitor: Visitor) -> None:
    target = "/LiveApp/play.html?id=stream1&token=a%2Fb"
    assert visitor.get(f"http://{DOMAIN}{target}").redirect == (301, f"https://{DOMAIN}{target}")
    assert visitor.get(f"http://{DOMAIN}:5080{target}").redirect == (301, f"https://{DOMAIN}:5443{target}")
    assert visitor.get(f"http://{DOMAIN}/").redirect == (301, f"https://{DOMAIN}/")
    assert visitor.get(f"http://{DOMAIN}:5080/").redirect == (301, f"https://{DOMAIN}:5443/")


def test_acme_challenges_on_80_go_to_certbot_and_nowhere_else(visitor: Visitor) -> None:
    # certbot listens only while it asks for a certificate.
    assert visitor.get(f"http://{DOMAIN}/.well-known/acme-challenge/token").status == 503


def test_panel_and_management_rest_answer_on_4444(visitor: Visitor, origins: set[str]) -> None:
    page = visitor.get(f"https://{DOMAIN}:4444/")
    assert (page.status, page.node in origins) == (200, True)
    assert b"Web panel" in page.body
    assert visitor.get(f"https://{DOMAIN}:4444/rest/v2/liveness").status == 200


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
def test_nothing_of_the_panel_answers_on_the_media_ports(visitor: Visitor, port: int, path: str) -> None:
    answer = visitor.get(f"https://{DOMAIN}:{port}/{path}")
    assert answer.status in (400, 404)
    assert answer.node is None  # it never got as far as a media node


def with_password(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


@pytest.mark.parametrize("path", ["haproxy_stats", "haproxy_stats;csv", "metrics"])
def test_statistics_and_metrics_answer_to_the_password_alone(
    cluster: Cluster, visitor: Visitor, path: str
) -> None:
    def ask(headers: str = "") -> Answer:
        return visitor.get(f"https://{DOMAIN}:6080/{path}", headers)

    password = cluster.setting("statisticsPassword")
    assert ask().status == 401
    assert ask(with_password("admin", "wrong")).status == 401
    assert ask(with_password("admin", "")).status == 401
    assert ask(with_password("somebody", password)).status == 401
    answer = ask(with_password("admin", password))
    assert answer.status == 200
    for server in ("origin1", "origin2", "edge1", "edge2"):
        assert server.encode() in answer.body
    if path == "metrics":
        assert b'haproxy_server_status{proxy="edges",server="edge1",state="UP"} 1' in answer.body


def test_plain_http_on_6080_redirects_to_itself_over_tls(visitor: Visitor) -> None:
    for path in ("haproxy_stats", "metrics"):
        answer = visitor.get(f"http://{DOMAIN}:6080/{path}")
        assert answer.redirect == (301, f"https://{DOMAIN}:6080/{path}")


def registered_nodes(cluster: Cluster, visitor: Visitor) -> dict[str, str]:
    """Status by address of every node in the cluster's registry, as the panel's administrator sees it."""
    email = cluster.run("sandbox/bin/pulumi", "config", "get", "ant-media-cluster:panelEmail").stdout.strip()
    credentials = {
        "email": email or f"admin@{DOMAIN}",
        "password": hashlib.md5(cluster.setting("panelPassword").encode()).hexdigest(),
    }
    login = visitor.post_json(f"https://{DOMAIN}:4444/rest/v2/users/authenticate", credentials)
    assert json.loads(login.body)["success"] is True
    cookies = "; ".join(value.split(";")[0] for name, value in login.headers if name.lower() == "set-cookie")
    nodes = visitor.get(f"https://{DOMAIN}:4444/rest/v2/cluster/nodes/0/50", f"Cookie: {cookies}\r\n")
    assert nodes.status == 200
    return {node["ip"]: node["status"] for node in json.loads(nodes.body)}


def test_the_panels_administrator_sees_every_node_in_the_clusters_registry(
    cluster: Cluster, visitor: Visitor
) -> None:
    media = {
        machine.private: "alive"
        for name, machine in cluster.machines().items()
        if name.startswith(("origin", "edge"))
    }
    assert len(media) == 4
    assert registered_nodes(cluster, visitor) == media


def test_without_logging_in_the_registry_is_closed(visitor: Visitor) -> None:
    assert visitor.get(f"https://{DOMAIN}:4444/rest/v2/cluster/nodes/0/50").status == 403
