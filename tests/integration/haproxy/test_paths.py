"""HAProxy denies paths that AMS normalizes differently, and no path that AMS's clients request.

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
    "/../LiveApp/",
    "/LiveApp/streams/cam1..m3u8/../../../rest",
    "/LiveApp/..%3b/rest/v2/version",
    "/LiveApp/..%3B",
    "/LiveApp/streams;jsessionid=0123/x.m3u8",
    # AMS's IP filter lets through any URL that contains rest/v2/acm.
    "/LiveApp/rest/v2/acm/../broadcasts/list/0/10",
    "/LiveApp/rest/v2/acm/%2e%2e/broadcasts/list/0/10",
    "/LiveApp/rest/v2/acm/.%2e;/broadcasts/list/0/10",
    "/LiveApp/rest/v2/acm/..%2fbroadcasts/list/0/10",
    "/LiveApp/rest/v2/acm/%252e%252e/broadcasts/list/0/10",
    "/LiveApp/rest/v2/broadcasts/list/0/10;rest/v2/acm",
    "/LiveApp/.;/x",
    "/LiveApp;x=/rest",
    "/LiveApp/%2e%2e/rest/v2/version",
    "/LiveApp/.%2E/rest/v2/version",
    "/LiveApp/%2e%2e%3b/rest/v2/version",
    "/LiveApp/%252e%252e/rest/v2/version",
    "/LiveApp/%25252e%25252e/rest/v2/version",
    "/LiveApp/..%252frest/v2/version",
    "/LiveApp/..%253b/rest/v2/version",
    "/LiveApp/x%255cy",
    "/LiveApp/..%2frest/v2/version",
    "/LiveApp%2F..%2Frest",
    "/LiveApp/%5c../rest",
    "/LiveApp\\..\\rest",
    "/LiveApp/x\\y",
    "/LiveApp/x%5Cy",
    "/LiveApp/x%2fy",
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
    "/LiveApp/?path=../..;//%2e%2e%2f%5c%00\\",
    "/LiveApp/rest/v2/request?_path=/LiveApp/..;/x",
    # Names of streams and files.
    "/LiveApp/streams/a.b-c_d.m3u8",
    "/LiveApp/streams/cam1..m3u8",
    "/LiveApp/streams/..cam1.m3u8",
    "/LiveApp/streams/...m3u8",
    "/LiveApp/streams/a..b/a..b.mpd",
    "/LiveApp/rest/v2/broadcasts/a..b",
    "/LiveApp/rest/v2/broadcasts/cam1./stop",
    "/LiveApp/rest/v2/broadcasts/..b",
    "/LiveApp/streams/name%20with%20spaces.mp4",
    "/LiveApp/streams/%C3%BC%E2%82%AC.mp4",
    "/LiveApp/streams/100%25.mp4",
    "/LiveApp/streams/50%25%20off%3B%20now.mp4",
    "/LiveApp/streams/rate%2510.mp4",
    "/LiveApp/streams/a%3Bb..mp4",
    "/LiveApp/streams/a+b@c,d(1)[2]!$&'*=~%23%3F.mp4",
)

# Every form of URL of AMS's pages, players and interfaces, with its source:
# S ant-media/StreamApp, W ant-media/Web-Player, A ant-media/Ant-Media-Server, D ant-media/ant-media-documentation.
CLIENT_REQUESTS = """
GET    /                                                        S web.xml: welcome page
GET    /play.html?id=stream1&playOrder=hls,webrtc               D embedded-web-player.md
GET    /play.html?id=mySubFolder/stream1&playOrder=hls          D hls-playing.md
GET    /play.html?id=streams/stream1.mp4&playOrder=vod          D playing-recorded-files.md
GET    /whip.html?id=stream1                                    S whip.html
GET    /samples/publish_webrtc.html                             S samples/
GET    /moq/play.html                                           D moq.md
GET    /js/utility.js                                           S js/
GET    /js/external/bootstrap.bundle.min.js.map                 S js/external/
GET    /css/external/bootstrap4/bootstrap-grid.min.css          S css/
GET    /images/icons/camera-off.svg                             S images/
GET    /openapi/openapi.json                                    S web.xml: OpenApi servlet
GET    /websocket                                               S utility.js: getWebSocketURL
GET    /websocket?rtmpForward=undefined&target=origin           S websocket_adaptor.js: target
GET    /stream1.webrtc?token=t                                  W web_player.js: getWebsocketURLForStream
POST   /analytic/events/play                                    S embedded-player.js, A AnalyticEventLogger.java
POST   /analytic/events/watch-time                              S embedded-player.js, A AnalyticEventLogger.java
POST   /whip/stream1?enableVideo=true                           A WhipEndpoint.java
DELETE /whip/stream1/0b1c-22                                    A WhipEndpoint.java
PATCH  /whip/stream1/0b1c-22                                    RFC 9725
HEAD   /streams/stream1_adaptive.m3u8?token=undefined&subscriberId=undefined&subscriberCode=undefined  S fetch.stream.js
HEAD   /streams/stream1.mp4?&token=t                            S fetch.stream.js: getURL
GET    /streams/stream1.m3u8?start=1668454888&end=1668454999    A HlsManifestModifierFilter.java
GET    /streams/stream1_480p1000kbps.m3u8                       A TokenFilterManager.java: hlsRegex
GET    /streams/stream1_480p1000kbps000000012.ts                A TokenFilterManager.java: tsRegex
GET    /streams/stream1000000012.fmp4                           A TokenFilterManager.java: tsRegex
GET    /streams/stream1__240p.m3u8                              A TokenFilterManager.java: tsRegex with __
GET    /streams/mySubFolder/stream1/stream1000000012.ts         D hls-playing.md
GET    /streams/ll-hls/stream1/stream1__master.m3u8             D ll-hls.md
HEAD   /streams/ll-hls/stream1/stream1__master_adaptive.m3u8    W web_player.js: checkStreamExistsViaHttp
GET    /streams/ll-hls/stream1/480/stream1__lowlatency.m3u8?_HLS_msn=12&_HLS_part=3   D ll-hls.md
GET    /streams/stream1/stream1.mpd                             D dash-playing-cmaf.md
HEAD   /streams/stream1/stream1_adaptive.mpd                    W web_player.js: checkStreamExistsViaHttp
GET    /streams/stream1/init-stream0.m4s                        A ChunkedTransferServletTest.java
GET    /streams/stream1/chunk-stream0-00001.m4s                 A ChunkedTransferServletTest.java
GET    /streams/drm/stream1/master.m3u8                         D drm-plugin.md, A TokenFilterManager.java
GET    /streams/stream1-2021-05-18_11-26-26.842_360p500kbps.mp4 A TokenFilterManager.java: vodDatetimeRegex
GET    /streams/541211332342978513714151_480p500kbps_1.webm     A TokenFilterManager.java: vodResolutionBitrateRegex
GET    /streams/stream1.mp3                                     A TokenFilterManager.java
OPTIONS /streams/stream1.m3u8                                   A TokenFilterManager.java: OPTIONS
GET    /previews/stream1_finished.png                           A Muxer.java: previews, D stream preview
PUT    /chunked/stream1/chunk-stream0-00001.m4s                 S web.xml: ChunkedTransferServlet
PUT    /hls-upload/mySubFolder/stream1.m3u8                     A UploadHLSChunk.java
GET    /rest/v2/version                                         A RootRestService.java
POST   /rest/v2/acm/msg?access_token=t                          A IPFilter.java
POST   /rest/v2/broadcasts/create?autoStart=true                A BroadcastRestService.java
DELETE /rest/v2/broadcasts/?ids=stream1,stream2                 A BroadcastRestService.java
GET    /rest/v2/broadcasts/list/0/10?type_by=liveStream&sort_by=name&order_by=asc&search=a%20b  A BroadcastRestService.java
GET    /rest/v2/broadcasts/count/a%20b%25                       A BroadcastRestService.java
GET    /rest/v2/broadcasts/duration?url=http://example.com/a.mp4 A BroadcastRestService.java
PUT    /rest/v2/broadcasts/stream1                              A BroadcastRestService.java
DELETE /rest/v2/broadcasts/stream1?deleteSubtracks=true         A BroadcastRestService.java
PUT    /rest/v2/broadcasts/stream1/seek-time/5000               A BroadcastRestService.java
POST   /rest/v2/broadcasts/stream1/endpoint                     A BroadcastRestService.java
DELETE /rest/v2/broadcasts/stream1/endpoint?endpointServiceId=c A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/jwt-token?expireDate=1&type=play  A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/tokens/list/0/10             A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/subscribers/list/0/10        A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/subscribers/sub%40example.com/totp?type=play  A BroadcastRestService.java
PUT    /rest/v2/broadcasts/stream1/subscribers/sub1/block/120/publish_play  A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/connection-events/0/10       A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/webrtc-client-stats/0/5      A BroadcastRestService.java
PUT    /rest/v2/broadcasts/stream1/recording/true?recordType=mp4&resolutionHeight=480  A BroadcastRestService.java
POST   /rest/v2/broadcasts/playlists/list1/next?index=2         A BroadcastRestService.java
POST   /rest/v2/broadcasts/stream1/ip-camera/move?valueX=0.1    A BroadcastRestService.java
POST   /rest/v2/broadcasts/stream1/subtrack?id=stream2          A BroadcastRestService.java
GET    /rest/v2/broadcasts/stream1/active-subtracks/0/10        A BroadcastRestService.java
POST   /rest/v2/broadcasts/stream1/id3                          A BroadcastRestService.java
POST   /rest/v2/broadcasts/stream1/hls-to-mp4?deleteHLSFiles=true  A BroadcastRestService.java
POST   /rest/v2/vods/create?name=100%25;a.mp4                   A VoDRestService.java
GET    /rest/v2/vods/list/0/10?filterStreamId=stream1           A VoDRestService.java
DELETE /rest/v2/vods/directory?directory=/mnt/vods              A VoDRestService.java
POST   /rest/v2/push-notification/topics/topic1?serviceName=fcm A PushNotificationRestService.java
POST   /rest/cluster-communication/publish-started-notification/stream1  A ClusterNotificationService.java
POST   /rest/v1/media-push/stop/stream1                         D media-push-plugin.md
GET    /rest/stats-plugin/stats/stream1                         D developing-plugins.md
"""


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


@pytest.mark.parametrize("port", [443, 5443])
@pytest.mark.parametrize("target", VALID_TARGETS)
def test_valid_target_reaches_the_node_unchanged(balancer: Balancer, port: int, target: str) -> None:
    assert request_https(port, target).header("X-Target") == target


@pytest.mark.parametrize("port", [443, 5443])
def test_every_request_of_amss_clients_reaches_a_node(balancer: Balancer, port: int) -> None:
    refused: list[str] = []
    for line in CLIENT_REQUESTS.strip().splitlines():
        method, path = line.split()[:2]
        body = b"x" if method in ("POST", "PUT", "PATCH") else b""
        if (
            request_https(port, f"/LiveApp{path}", method=method, body=body).header("X-Target")
            != f"/LiveApp{path}"
        ):
            refused.append(line)
    assert not refused


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
