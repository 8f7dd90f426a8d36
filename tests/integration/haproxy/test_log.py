"""Log lines, which reach the journal through the /dev/log that the unit mounts into the chroot."""

import re

import pytest

from tests.integration.haproxy.clients import open_rtmp, request_https
from tests.integration.haproxy.conftest import Balancer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_request_log_line_has_client_request_server_and_times(balancer: Balancer) -> None:
    response = request_https(443, "/LiveApp/rest/v2/logged")
    (line,) = balancer.haproxy.find_log_lines("/LiveApp/rest/v2/logged")
    pattern = rf" 203\.0\.113\.9:\d+ \[.+\] publish~ origins/{response.node} [-0-9/]+ 200 \d+ - - --\S\S "
    assert re.search(pattern, line)
    assert '"GET /LiveApp/rest/v2/logged HTTP/1.1"' in line


def test_log_line_and_request_to_ams_share_a_unique_id(balancer: Balancer) -> None:
    ids = [request_https(443, f"/LiveApp/rest/v2/id{n}").received.all("X-Request-ID")[0] for n in range(2)]
    assert ids[0] != ids[1]
    for n in range(2):
        (line,) = balancer.haproxy.find_log_lines(f"/LiveApp/rest/v2/id{n}")
        assert UUID.findall(line) == [ids[n]]


def test_tokens_and_cookies_are_not_logged(balancer: Balancer) -> None:
    request_https(
        443,
        "/LiveApp/rest/v2/private?token=s3cret",
        "Cookie: JSESSIONID=s3cret\r\nAuthorization: Bearer s3cret\r\n",
    )
    request_https(443, "/LiveApp/%00?token=s3cret")
    assert balancer.haproxy.find_log_lines("/LiveApp/rest/v2/private")
    assert balancer.haproxy.find_log_lines("/LiveApp/%00")
    assert balancer.haproxy.find_log_lines("s3cret", seconds=0.2) == []


@pytest.mark.parametrize("suffix", [".m3u8", ".ts", ".m4s", ".mpd", ".fmp4"])
def test_delivered_media_is_not_logged(balancer: Balancer, suffix: str) -> None:
    """Two lines a second for every viewer would exceed journald's rate limit, which then drops other lines too."""
    request_https(5443, f"/LiveApp/streams/quiet{suffix}")
    request_https(5443, f"/LiveApp/rest/after{suffix}/quiet")
    assert balancer.haproxy.find_log_lines(f"/LiveApp/rest/after{suffix}/quiet")
    assert balancer.haproxy.find_log_lines(f"/LiveApp/streams/quiet{suffix}", seconds=0.1) == []


def test_failed_media_request_is_logged(balancer: Balancer) -> None:
    assert request_https(5443, "/LiveApp/streams/missing.m3u8").status == 404
    (line,) = balancer.haproxy.find_log_lines("/LiveApp/streams/missing.m3u8")
    assert " 404 " in line


def test_rtmp_session_is_logged_when_it_ends(balancer: Balancer) -> None:
    connection, node = open_rtmp()
    connection.close()
    assert balancer.haproxy.find_log_lines(f" rtmp rtmp/{node} ")
