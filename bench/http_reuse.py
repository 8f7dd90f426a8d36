"""Measures requests per second through HAProxy: the guide's `option http-server-close` against our `http-reuse always`.

Everything else is the rendered file, word for word. Client, HAProxy and node share this machine, so only the ratio means
something. Takes 20 seconds and root; HAProxy and wrk come from the image of the tests, built where it is missing.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from sandbox.cloud import images
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN, HAProxy, make_certificate
from tests.integration.haproxy.network_namespace import own_network

ROUNDS, SECONDS, CLIENTS = 3, 3, 64
ORIGINS = (Server("origin1", "10.0.0.8"), Server("origin2", "10.0.0.9"))
OURS = render_haproxy_cfg(HAProxyConfig(DOMAIN, ORIGINS, (), ("LiveApp",), 1024, hsts_max_age=0))
GUIDES = OURS.replace("http-reuse always", "option http-server-close")

# A node that answers at once and never with anything but a playlist of 1.3 kB.
PLAYLIST = "#EXTM3U " + "x" * 1300
NODE = f"""
global
    stats socket /run/haproxy/admin.sock
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend node
    bind :5080
    http-request return status 200 content-type application/vnd.apple.mpegurl string "{PLAYLIST}"
"""


def requests_per_second(haproxy: HAProxy, text: str) -> float:
    haproxy.start(text)
    try:
        wrk = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", f"https://{BALANCER}/LiveApp/streams/test.m3u8"]
        output = subprocess.run(
            ["chroot", str(haproxy.root), *wrk],
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS + 10,
        ).stdout
    finally:
        haproxy.stop()
    if "Non-2xx" in output or not (found := re.search(r"Requests/sec: +([0-9.]+)", output)):
        raise SystemExit(f"wrk did not measure what it should:\n{output}")
    return float(found[1])


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit(
            "bench/http_reuse needs root, for network namespaces and mounts of its own: run it with sudo"
        )
    layers = ":".join(map(str, images.build("haproxy")))
    with (
        tempfile.TemporaryDirectory(prefix="http-reuse.") as folder,
        own_network(BALANCER, [server.address for server in ORIGINS], []) as network,
    ):
        path = Path(folder)
        certificate = make_certificate(path)
        node = HAProxy(layers, path / "node", certificate)
        with network.at_nodes():
            node.start(NODE)
        rates: dict[str, list[float]] = {"http-server-close": [], "http-reuse always": []}
        for turn in range(ROUNDS):
            for name, text in zip(rates, (GUIDES, OURS), strict=True):
                rates[name].append(
                    requests_per_second(HAProxy(layers, path / f"{name[5:8]}{turn}", certificate), text)
                )
        node.stop()
    for name, measured in rates.items():
        each = " ".join(f"{rate:.0f}" for rate in measured)
        print(f"{name:18} {median(measured):7.0f} requests/s over TLS   ({each})")
    close, reuse = (median(measured) for measured in rates.values())
    print(f"{'ratio':18} {reuse / close:7.2f}")


if __name__ == "__main__":
    main()
