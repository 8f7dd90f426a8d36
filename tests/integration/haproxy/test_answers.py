"""The balancer leaves the answers of the nodes as good as they were: for browsers, for caches, for clients without cookies."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.integration.haproxy.clients import (
    Response,
    connect_tls,
    read_response,
    request_https,
    request_node,
    request_plain,
)
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN

EDGE = CLUSTER.edges[0]
STICKY = f"Cookie: AMS_EDGE={EDGE.name}\r\n"

# What follows from the headers of the answers, with `proxy_cache_valid` for those without Cache-Control.
CACHEABLE = (
    "seg000000001.ts",
    "0/chunk-stream0-00001.m4s",
    "seg000000001.fmp4",
    "vod.mp4",
    "../previews/s.png",
)
NOT_CACHEABLE = ("live.m3u8", "live/live.mpd", "missing.mp4", "vod.mp4?token=t")


def stream_path(name: str) -> str:
    return f"/LiveApp/{name[3:]}" if name.startswith("../") else f"/LiveApp/streams/{name}"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "live.m3u8", ""),
        ("GET", "live.m3u8", "Accept-Encoding: gzip\r\n"),
        ("GET", "seg000000001.ts", ""),
        ("GET", "0/chunk-stream0-00001.m4s", ""),
        ("GET", "vod.mp4", ""),
        ("GET", "vod.mp4", "Range: bytes=10-19\r\n"),
        ("GET", "vod.mp4", 'If-None-Match: W/"300-1764149000000"\r\n'),
        ("HEAD", "vod.mp4", ""),
        ("HEAD", "live.m3u8", ""),
        ("GET", "missing.mp4", ""),
    ],
)
def test_answer_is_that_of_the_node(balancer: Balancer, method: str, path: str, headers: str) -> None:
    session = "Cookie: JSESSIONID=abc\r\n"
    node = request_node(EDGE.address, stream_path(path), session + headers, method)
    answer = request_https(
        5443, stream_path(path), session.strip() + f"; AMS_EDGE={EDGE.name}\r\n" + headers, method
    )

    def compare(response: Response) -> tuple[int, list[tuple[str, str]], bytes]:
        own = ("date", "expires", "strict-transport-security")
        kept = [(name.lower(), value) for name, value in response.headers if name.lower() not in own]
        return response.status, sorted(kept), response.body

    assert compare(answer) == compare(node)


def test_upload_waits_for_the_node_to_continue(balancer: Balancer) -> None:
    with connect_tls(443) as connection:
        head = f"POST /LiveApp/rest/v2/vods/create HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"data")
        assert read_response(connection).status == 200


@pytest.mark.parametrize("port", [443, 5443])
@pytest.mark.parametrize("name", CACHEABLE)
def test_cacheable_answer_sets_no_cookie(balancer: Balancer, port: int, name: str) -> None:
    for headers in ("", 'If-None-Match: W/"300-1764149000000"\r\n'):
        assert request_https(port, stream_path(name), headers).all("Set-Cookie") == []


@pytest.mark.parametrize("name", NOT_CACHEABLE)
def test_other_answers_set_the_sticky_cookie_beside_the_session_of_ams(balancer: Balancer, name: str) -> None:
    response = request_https(5443, stream_path(name))
    cookies = {
        cookie.split("=")[0]: cookie.split("=")[1].split(";")[0] for cookie in response.all("Set-Cookie")
    }
    assert set(cookies) == {"JSESSIONID", "AMS_EDGE"}
    assert cookies["JSESSIONID"] == cookies["AMS_EDGE"]


def test_segments_do_not_move_a_sticky_viewer(balancer: Balancer) -> None:
    for node in ("edge1", "edge2"):
        served = balancer.nodes[node].served_files
        served.clear()
        paths = [f"/LiveApp/streams/{node}-{n}.ts" for n in range(8)]
        for path in paths:
            answer = request_https(5443, path, f"Cookie: AMS_EDGE={node}; JSESSIONID=abc\r\n")
            assert answer.all("Set-Cookie") == []
        assert served == paths


NGINX = """
daemon off;
pid /run/nginx-test.pid;
error_log stderr;
events {}
http {
  access_log off;
  proxy_cache_path /run/nginx-cache keys_zone=cache:1m;
  proxy_cache cache;
  proxy_cache_key $server_port$request_uri;
  proxy_cache_valid 200 10m;
  proxy_http_version 1.1;
  add_header X-Cache $upstream_cache_status always;
  server { listen 127.0.0.1:9001; location / { proxy_pass https://%(balancer)s:5443; } }
  server { listen 127.0.0.1:9002; location / { proxy_pass https://%(balancer)s:5443; proxy_ignore_headers Set-Cookie; } }
  server { listen 127.0.0.1:9003; location / { proxy_pass http://%(node)s:5080; proxy_ignore_headers Set-Cookie; } }
}
"""
BALANCED, BALANCED_IGNORING_COOKIES, STRAIGHT_IGNORING_COOKIES = 9001, 9002, 9003


@pytest.fixture(scope="module")
def nginx(balancer: Balancer) -> Iterator[None]:
    """A caching proxy with three ports: to the balancer, and to a node."""
    (balancer.haproxy.root / "run/nginx.conf").write_text(
        NGINX % {"balancer": BALANCER, "node": EDGE.address}
    )
    process = subprocess.Popen(["chroot", str(balancer.haproxy.root), "nginx", "-c", "/run/nginx.conf"])
    while request_plain(BALANCED, "/LiveApp/streams/live.m3u8") is None:
        assert process.poll() is None
        time.sleep(0.05)
    yield
    process.terminate()
    process.wait(timeout=60)


def read_cache(port: int, name: str) -> list[str | None]:
    answers = [request_plain(port, stream_path(name)) for _ in range(4)]
    return [answer.header("X-Cache") for answer in answers if answer]


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("name", CACHEABLE)
def test_cache_in_front_of_5443_has_as_many_hits_as_in_front_of_a_node(name: str) -> None:
    """Straight at a node, a cache must ignore AMS's session cookie to have any."""
    hits = ["MISS", "HIT", "HIT", "HIT"]
    assert read_cache(STRAIGHT_IGNORING_COOKIES, name) == hits
    assert read_cache(BALANCED_IGNORING_COOKIES, name) == hits
    assert read_cache(BALANCED, name) == hits


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("name", ["live.m3u8", "live/live.mpd"])
def test_playlists_are_not_cached(name: str) -> None:
    assert read_cache(STRAIGHT_IGNORING_COOKIES, name) == read_cache(BALANCED, name) == ["MISS"] * 4
