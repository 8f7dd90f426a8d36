"""A path that AMS may read otherwise than HAProxy does never reaches a node.

AMS serves `/LiveApp/..;/rest` as `/rest`: a rule on path prefixes alone can be walked around.
"""

import pytest

from tests.integration.haproxy.clients import HTTP2, connect_tls, exchange, https
from tests.integration.haproxy.conftest import Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN

TRICKS = (
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

ODD_BYTES = (b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\x80", b"\xc0\xae", b"\xff")

HARMLESS = (
    "/LiveApp/",
    "/LiveApp/streams/a.b-c_d.m3u8",
    "/LiveApp/streams/name%20with%20spaces.mp4",
    "/LiveApp/streams/%C3%BC%E2%82%AC.mp4",
    "/LiveApp/?path=../..;//%2e%2e%2f%5c%00\\",
    "/LiveApp/rest/v2/request?_path=/LiveApp/..;/x",
)


@pytest.mark.parametrize("port", [443, 5443, 4444])
@pytest.mark.parametrize("path", TRICKS)
def test_a_tricky_path_is_refused(balancer: Balancer, port: int, path: str) -> None:
    target = path.replace(" ", "+")
    assert https(port, target).status == 400
    assert https(port, f"{target}?target=origin").status == 400


@pytest.mark.parametrize("port", [443, 4444])
@pytest.mark.parametrize("octets", ODD_BYTES)
def test_a_byte_that_no_path_has_is_refused(balancer: Balancer, port: int, octets: bytes) -> None:
    with connect_tls(port) as connection:
        response = exchange(
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
def test_http2_is_no_way_around(balancer: Balancer, path: str) -> None:
    client = HTTP2(443)
    client.request([(":method", "GET"), (":scheme", "https"), (":authority", DOMAIN), (":path", path)])
    try:
        assert client.status() in ("400", "404", repr(b"RST"), repr(b"GOAWAY"))
    finally:
        client.close()


@pytest.mark.parametrize("port", [443, 4444])
@pytest.mark.parametrize("target", HARMLESS)
def test_a_harmless_path_arrives_unchanged(balancer: Balancer, port: int, target: str) -> None:
    response = https(port, target)
    assert response.status == 200
    assert response.seen.target == target


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
def test_no_other_form_of_target_reaches_the_root_application(
    balancer: Balancer, method: str, target: str
) -> None:
    assert https(443, target, method=method).status in (400, 404)
