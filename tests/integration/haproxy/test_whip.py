"""Clients without cookies, such as OBS: the requests of a WHIP or WHEP session reach the node that has it.

AMS: POST /APP/whip/STREAM returns 201 with `Location: https://HOST/APP/whip/STREAM/SESSION`, and DELETE ends the session
(io.antmedia.whip.WhipEndpoint). The location has no port: Tomcat's RemoteIpValve replaces it with 443 when X-Forwarded-Proto
is https. AMS has no PATCH, and WHEP only in a proposal (pull request 7119).
"""

from urllib.parse import urlsplit

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import Response, request_https
from tests.integration.haproxy.conftest import CLUSTER, GROWN, Balancer

ROLES = {"whip": {"origin1", "origin2"}, "whep": {"edge1", "edge2"}}
STREAMS = [f"stream{n}" for n in range(60)]


def start_session(port: int, endpoint: str, stream: str, headers: str = "") -> Response:
    response = request_https(port, f"/LiveApp/{endpoint}/{stream}", headers, "POST", b"v=0")
    assert response.status == 201
    return response


def choose_nodes(endpoint: str) -> dict[str, str | None]:
    return {stream: start_session(443, endpoint, stream).header("X-Node") for stream in STREAMS}


@pytest.mark.parametrize("port", [443, 5443, 4444])
@pytest.mark.parametrize("endpoint", ["whip", "whep"])
def test_requests_of_a_session_reach_its_node(balancer: Balancer, endpoint: str, port: int) -> None:
    nodes = set[str | None]()
    for stream in STREAMS[:20]:
        session = start_session(port, endpoint, stream, "Cookie: AMS_ORIGIN=origin1; AMS_EDGE=edge1\r\n")
        path = urlsplit(session.header("Location") or "").path
        assert path.startswith(f"/LiveApp/{endpoint}/{stream}/")
        patch = request_https(443, path, method="PATCH", body=b"a=candidate")
        assert patch.header("X-Node") == session.header("X-Node")
        assert request_https(443, path, method="DELETE").status == 200
        nodes.add(session.header("X-Node"))
    assert nodes == ROLES[endpoint]


def test_same_stream_of_another_application_is_another_stream(balancer: Balancer) -> None:
    def choose(application: str) -> list[str | None]:
        paths = (f"/{application}/whip/{stream}" for stream in STREAMS)
        return [request_https(443, path, method="POST", body=b"v=0").header("X-Node") for path in paths]

    assert choose("LiveApp") != choose("live")


def test_streams_of_other_nodes_stay_when_a_node_leaves_or_is_added(balancer: Balancer) -> None:
    before = choose_nodes("whep")
    balancer.haproxy.run_script("drain-server.sh", "edge1", "0", "digest")
    assert choose_nodes("whep") == dict.fromkeys(STREAMS, "edge2")
    balancer.haproxy.run_script("return-server.sh", "edge1", "digest")
    balancer.haproxy.reload_with_script(render_haproxy_cfg(GROWN))
    try:
        balancer.haproxy.run_script("wait-for-servers.sh", "digest")
        grown = choose_nodes("whep")
        moved = {stream for stream in STREAMS if grown[stream] != before[stream]}
        assert {grown[stream] for stream in moved} == {"edge3"}
        assert len(moved) < len(STREAMS) / 2
        balancer.haproxy.run_script("drain-server.sh", "edge2", "0", "digest")
        shrunk = choose_nodes("whep")
        assert {grown[stream] for stream in STREAMS if shrunk[stream] != grown[stream]} == {"edge2"}
        assert set(shrunk.values()) == {"edge1", "edge3"}
        balancer.haproxy.run_script("return-server.sh", "edge2", "digest")
    finally:
        balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))


def test_streams_keep_their_nodes_when_haproxy_reloads(balancer: Balancer) -> None:
    before = choose_nodes("whip")
    balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))
    assert choose_nodes("whip") == before


def test_edges_take_sessions_while_no_origin_serves(balancer: Balancer) -> None:
    for node in ROLES["whip"]:
        balancer.haproxy.ask(f"set server origins/{node} health down")
        balancer.haproxy.ask(f"set server whip/{node} state maint")
    assert set(choose_nodes("whip").values()) == ROLES["whep"]
