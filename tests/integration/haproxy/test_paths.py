"""HAProxy denies paths that AMS normalizes differently.

AMS serves `/LiveApp/..;/rest` as `/rest`, so a rule on path prefixes alone can be bypassed.
"""

import pytest

from tests.integration.haproxy.clients import HTTP2, connect_tls, request_https, send_request
from tests.integration.haproxy.conftest import Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN

TRAVERSAL_PATHS = (
    "/LiveApp/../rest/v2/version",
    "/LiveApp/..",
    "/LiveApp/..;/rest/v2/version",
    "/LiveApp/.;/x",
    "/LiveApp;x=/rest",
    "/LiveApp/%2e%2e/rest/v2/version",
    "/LiveApp/.%2E/rest/v2/version",
    "/LiveApp/%2e%2e%3b/rest/v2/version",
    "/LiveApp/%252e%252e/rest/v2/version",
    "/LiveApp/..%2frest/v2/version",
    "/LiveApp%2F..%2Frest",
    "/LiveApp/%5c../rest",
    "/LiveApp\\..\\rest",
    "/LiveApp/x\\y",
    "/LiveApp/x%5Cy",
    "/LiveApp/x%2fy",
    "/LiveApp/x%3By",
    "/LiveApp//rest/v2/version",
    "//LiveApp/",
    "//rest/v2/version",
    "/LiveApp/%00",
    "/LiveApp/%0d%0aX: y",
    "/LiveApp/%09",
    "/LiveApp/%1f",
    "/LiveApp/%7F",
    "/LiveApp/%c0%ae%c0%ae/rest",
    "/LiveApp/%u002e%u002e/rest",
)

INVALID_BYTES = (b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\x80", b"\xc0\xae", b"\xff")

VALID_TARGETS = (
    "/LiveApp/",
    "/LiveApp/streams/a.b-c_d.m3u8",
    "/LiveApp/streams/name%20with%20spaces.mp4",
    "/LiveApp/streams/%C3%BC%E2%82%AC.mp4",
    "/LiveApp/?path=../..;//%2e%2e%2f%5c%00\\",
    "/LiveApp/rest/v2/request?_path=/LiveApp/..;/x",
)


@pytest.mark.parametrize("port", [443, 5443, 4444])
@pytest.mark.parametrize("path", TRAVERSAL_PATHS)
def test_path_that_bypasses_prefix_rules_is_denied(balancer: Balancer, port: int, path: str) -> None:
    target = path.replace(" ", "+")
    assert request_https(port, target).status == 400
    assert request_https(port, f"{target}?target=origin").status == 400


@pytest.mark.parametrize("port", [443, 4444])
@pytest.mark.parametrize("octets", INVALID_BYTES)
def test_invalid_byte_in_path_is_denied(balancer: Balancer, port: int, octets: bytes) -> None:
    with connect_tls(port) as connection:
        response = send_request(
            connection, b"GET /LiveApp/" + octets + b" HTTP/1.1\r\nHost: " + DOMAIN.encode() + b"\r\n"
        )
    assert response.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/LiveApp/../rest",
        "/LiveApp/..;/rest",
        "/LiveApp/%2e%2e/rest",
        "/LiveApp/\x01",
        "/LiveApp/\x80",
        "/rest",
    ],
)
def test_http2_paths_are_denied_too(balancer: Balancer, path: str) -> None:
    client = HTTP2(443)
    client.send_headers([(":method", "GET"), (":scheme", "https"), (":authority", DOMAIN), (":path", path)])
    try:
        assert client.read_status() in ("400", "404", repr(b"RST"), repr(b"GOAWAY"))
    finally:
        client.close()


@pytest.mark.parametrize("port", [443, 4444])
@pytest.mark.parametrize("target", VALID_TARGETS)
def test_valid_target_reaches_the_node_unchanged(balancer: Balancer, port: int, target: str) -> None:
    response = request_https(port, target)
    assert response.status == 200
    assert response.received.target == target


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
@pytest.mark.parametrize(
    "target",
    [
        "*",
        "rest/v2/version",
        f"https://{DOMAIN}/rest/v2/version",
        f"https://{DOMAIN}/LiveApp/../rest",
        f"https://{DOMAIN}?/LiveApp/",
        f"https://{DOMAIN}",
        "https:///rest",
        "https:/rest",
        "x:/LiveApp/",
    ],
)
def test_root_application_is_not_reached_by_other_forms_of_target(
    balancer: Balancer, method: str, target: str
) -> None:
    assert request_https(443, target, method=method).status in (400, 404)
