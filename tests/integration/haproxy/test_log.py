"""What arrives in the journal, through the /dev/log that the unit binds into the chroot."""

import re

import pytest

from tests.integration.haproxy.clients import https, open_rtmp
from tests.integration.haproxy.conftest import Balancer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_a_request_is_one_line_that_says_who_what_where_and_how_long(balancer: Balancer) -> None:
    response = https(443, "/LiveApp/rest/v2/logged")
    (line,) = balancer.haproxy.log("/LiveApp/rest/v2/logged")
    pattern = rf" 203\.0\.113\.9:\d+ \[.+\] publish~ origins/{response.node} [-0-9/]+ 200 \d+ - - --\S\S "
    assert re.search(pattern, line)
    assert '"GET /LiveApp/rest/v2/logged HTTP/1.1"' in line


def test_the_line_and_the_request_that_ams_got_have_one_id_and_no_other_has_it(balancer: Balancer) -> None:
    ids = [https(443, f"/LiveApp/rest/v2/id{n}").seen.all("X-Request-ID")[0] for n in range(2)]
    assert ids[0] != ids[1]
    for n in range(2):
        (line,) = balancer.haproxy.log(f"/LiveApp/rest/v2/id{n}")
        assert UUID.findall(line) == [ids[n]]


def test_no_token_and_no_cookie_is_logged(balancer: Balancer) -> None:
    https(
        443,
        "/LiveApp/rest/v2/private?token=s3cret",
        "Cookie: JSESSIONID=s3cret\r\nAuthorization: Bearer s3cret\r\n",
    )
    https(443, "/LiveApp/%00?token=s3cret")
    assert balancer.haproxy.log("/LiveApp/rest/v2/private")
    assert balancer.haproxy.log("/LiveApp/%00")
    assert balancer.haproxy.log("s3cret", seconds=0.2) == []


@pytest.mark.parametrize("suffix", [".m3u8", ".ts", ".m4s", ".mpd", ".fmp4"])
def test_media_that_was_delivered_is_not_logged(balancer: Balancer, suffix: str) -> None:
    """Two lines a second for every viewer: journald would drop them, and others with them."""
    https(5443, f"/LiveApp/streams/quiet{suffix}")
    https(5443, f"/LiveApp/rest/after{suffix}/quiet")
    assert balancer.haproxy.log(f"/LiveApp/rest/after{suffix}/quiet")
    assert balancer.haproxy.log(f"/LiveApp/streams/quiet{suffix}", seconds=0.1) == []


def test_media_that_failed_is_logged(balancer: Balancer) -> None:
    assert https(5443, "/LiveApp/streams/missing.m3u8").status == 404
    (line,) = balancer.haproxy.log("/LiveApp/streams/missing.m3u8")
    assert " 404 " in line


def test_an_rtmp_session_is_logged_when_it_ends(balancer: Balancer) -> None:
    connection, node = open_rtmp()
    connection.close()
    assert balancer.haproxy.log(f" rtmp rtmp/{node} ")
