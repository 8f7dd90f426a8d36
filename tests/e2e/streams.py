"""Streams that ffmpeg publishes over RTMP and clients play over HLS."""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.e2e.clients import Client
from tests.e2e.running_cluster import CA_FILE, DOMAIN, Cluster, running_process, wait_until

# The smallest stream with video and audio.
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
def publishing(
    cluster: Cluster, stream: str, domain: str = DOMAIN, tls: bool = False
) -> Generator[subprocess.Popen[str]]:
    """Publishes a stream from the sandbox's internet, by RTMP or RTMPS."""
    url = f"rtmps://{domain}:1936/LiveApp/{stream}" if tls else f"rtmp://{domain}:1935/LiveApp/{stream}"
    with running_process(cluster.operator_command("ffmpeg", "-v", "warning", *TEST_STREAM, url)) as process:
        yield process


def get_playlist(client: Client, stream: str, domain: str = DOMAIN) -> str:
    """Returns a stream's HLS playlist from an edge; empty if the stream does not exist."""
    response = client.get(f"https://{domain}:5443/LiveApp/streams/{stream}.m3u8")
    return response.body.decode() if response.status == 200 else ""


def wait_for_stream(client: Client, stream: str, segments: int = 2, domain: str = DOMAIN) -> None:
    wait_until(lambda: get_playlist(client, stream, domain).count(".ts") >= segments)


def probe_stream(cluster: Cluster, url: str) -> dict[str, Any]:
    """Returns ffprobe's report of a URL by type of stream. The server's certificate must be valid."""
    trust = ["-tls_verify", "1", "-ca_file", str(CA_FILE)]
    wanted = ["-show_entries", "stream=codec_type,codec_name,width", "-of", "json"]
    report = cluster.check_output(*cluster.operator_command("ffprobe", "-v", "error", *trust, *wanted, url))
    return {found["codec_type"]: found for found in json.loads(report)["streams"]}
