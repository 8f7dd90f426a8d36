"""Publishing by RTMP and watching by HLS, with ffmpeg."""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.e2e.clients import Visitor
from tests.e2e.running_cluster import DOMAIN, STATE, Cluster, eventually, running

# As small as a stream can be that has all that matters.
TEST_STREAM = [
    "-re",
    "-f",
    "lavfi",
    "-i",
    "testsrc2=size=160x120:rate=10",
    "-f",
    "lavfi",
    "-i",
    "sine",
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-tune",
    "zerolatency",
    "-g",
    "10",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "aac",
    "-f",
    "flv",
]


@contextmanager
def publisher(cluster: Cluster, stream: str) -> Generator[subprocess.Popen[str]]:
    """Somebody on the internet who publishes while this lasts."""
    url = f"rtmp://{DOMAIN}:1935/LiveApp/{stream}"
    with running(cluster.as_operator("ffmpeg", "-v", "warning", *TEST_STREAM, url)) as process:
        yield process


def playlist(visitor: Visitor, stream: str) -> str:
    """Of an edge; empty while there is nothing to be seen."""
    answer = visitor.get(f"https://{DOMAIN}:5443/LiveApp/streams/{stream}.m3u8")
    return answer.body.decode() if answer.status == 200 else ""


def wait_for(visitor: Visitor, stream: str, segments: int = 2) -> None:
    eventually(lambda: playlist(visitor, stream).count(".ts") >= segments, within=25)


def probe(cluster: Cluster, url: str) -> dict[str, Any]:
    """What ffprobe finds at a URL, by kind of stream; the server's certificate must hold."""
    trust = ["-tls_verify", "1", "-ca_file", str(STATE / "operator/ca-certificates.crt")]
    wanted = ["-show_entries", "stream=codec_type,codec_name,width", "-of", "json"]
    report = cluster.must(*cluster.as_operator("ffprobe", "-v", "error", *trust, *wanted, url))
    return {found["codec_type"]: found for found in json.loads(report)["streams"]}
