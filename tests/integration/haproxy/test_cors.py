"""Pages of other sites can read HAProxy's own responses on the ports of publishers and viewers, as they can read AMS's.

AMS allows every origin without credentials (web.xml: cors.allowed.origins `*`). The checks are those of the Fetch standard:
https://fetch.spec.whatwg.org/#cors-check and #cors-preflight-fetch.
"""

from collections.abc import Iterator

import pytest

from tests.integration.haproxy.clients import Response, request_http, request_https
from tests.integration.haproxy.conftest import Balancer
from tests.integration.haproxy.dummy_node import Node
from tests.integration.haproxy.test_health import EDGES, ORIGINS, server_states, set_health, wait_for

SITE = "https://player.example.org"
ORIGIN = f"Origin: {SITE}\r\n"


def is_readable(response: Response) -> bool:
    return response.all("Access-Control-Allow-Origin") in (["*"], [SITE])


def list_values(response: Response, name: str) -> set[str]:
    return {value.strip().lower() for value in (response.header(name) or "").split(",")}


def fetch(port: int, path: str, method: str = "GET", headers: tuple[str, ...] = ()) -> Response | None:
    """Returns the response of a request from a page of another site, or None if a browser would not show it to the page."""
    if method not in ("GET", "HEAD", "POST") or headers:
        preflight = request_https(
            port,
            path,
            f"{ORIGIN}Access-Control-Request-Method: {method}\r\n"
            + (f"Access-Control-Request-Headers: {','.join(headers)}\r\n" if headers else ""),
            "OPTIONS",
        )
        if not (200 <= preflight.status < 300 and is_readable(preflight)):
            return None
        if not list_values(preflight, "Access-Control-Allow-Methods") & {method.lower(), "*"}:
            return None
        allowed = list_values(preflight, "Access-Control-Allow-Headers")
        # The wildcard does not include Authorization.
        if not all(name in allowed or ("*" in allowed and name != "authorization") for name in headers):
            return None
    response = request_https(port, path, ORIGIN + "".join(f"{name}: x\r\n" for name in headers), method)
    return response if is_readable(response) else None


REQUESTS = pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", ()),
        ("GET", ("authorization", "range")),
        ("POST", ("content-type",)),
        ("PUT", ()),
        ("DELETE", ("authorization",)),
    ],
)


@pytest.mark.parametrize("port", [443, 5443])
@pytest.mark.parametrize(("path", "status"), [("/Unlisted/streams/a.m3u8", 404), ("/LiveApp/../x", 400)])
@REQUESTS
def test_denial_is_readable(
    balancer: Balancer, port: int, path: str, status: int, method: str, headers: tuple[str, ...]
) -> None:
    response = fetch(port, path, method, headers)
    assert response
    assert response.status == status


def test_lost_response_is_readable(balancer: Balancer) -> None:
    response = fetch(443, "/LiveApp/drop", "POST")
    assert response
    assert response.status == 502


@pytest.fixture
def no_node_serves(balancer: Balancer) -> Iterator[None]:
    nodes: dict[str, Node] = balancer.nodes
    set_health(nodes, ORIGINS | EDGES, healthy=False)
    wait_for(lambda: server_states(balancer, ORIGINS | EDGES) == {"DOWN"})
    yield
    set_health(nodes, ORIGINS | EDGES, healthy=True)
    wait_for(lambda: server_states(balancer, ORIGINS | EDGES) == {"UP"})


@pytest.mark.usefixtures("no_node_serves")
def test_unavailable_service_is_readable() -> None:
    for method, headers in (("GET", ()), ("DELETE", ("authorization",))):
        for path in ("/LiveApp/streams/a.m3u8", "/LiveApp/whip/a"):
            response = fetch(5443, path, method, headers)
            assert response
            assert response.status == 503


def test_redirects_are_readable(balancer: Balancer) -> None:
    for response in (request_http(80, "/x"), request_http(5080, "/x"), request_https(5080, "/x")):
        assert response.status == 301
        assert is_readable(response)


def test_answers_of_nodes_keep_their_own_headers(balancer: Balancer) -> None:
    """A node that allows other origins than every one must not be overruled: the dummy node sends nothing here."""
    for method in ("GET", "OPTIONS"):
        response = request_https(443, "/LiveApp/rest/v2/version", ORIGIN, method)
        assert response.status == 200
        assert not [name for name, _ in response.headers if name.lower().startswith("access-control-")]


def test_panel_and_statistics_are_not_readable(balancer: Balancer) -> None:
    for response in (
        request_https(4444, "/LiveApp/../x", ORIGIN),
        request_https(6080, "/haproxy_stats", ORIGIN),
        request_https(6080, "/", ORIGIN),
        request_http(6080, "/"),
    ):
        assert response.status in (400, 301, 302, 401)
        assert response.header("Access-Control-Allow-Origin") is None
