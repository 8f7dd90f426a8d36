"""Measures requests per second through HAProxy: `option http-server-close` of the guide against our `http-reuse always`.

The rest of the configuration is the rendered file. Client, HAProxy and node share this machine, so only the ratio is
meaningful. Takes 20 seconds and needs root. HAProxy and wrk come from the tests' image, which is built if it is missing.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from sandbox.cloud import images
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN, HAProxy, make_certificate
from tests.integration.haproxy.network_namespace import separate_networks

ROUNDS, SECONDS, CLIENTS = 3, 3, 64
ORIGINS = (Server("origin1", "10.0.0.8"), Server("origin2", "10.0.0.9"))
OUR_CONFIG = render_haproxy_cfg(
    HAProxyConfig(DOMAIN, ORIGINS, (), ("LiveApp",), ("10.0.0.0/8",), 0, 1024, hsts_max_age=0)
)
GUIDE_CONFIG = OUR_CONFIG.replace("http-reuse always", "option http-server-close")

# A node that responds to every request with a playlist of 1.3 kB.
PLAYLIST = "#EXTM3U " + "x" * 1300
NODE_CONFIG = f"""
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


def measure_requests_per_second(haproxy: HAProxy, text: str) -> float:
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
        raise SystemExit(f"wrk reported errors or no rate:\n{output}")
    return float(found[1])


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit(
            "bench.http_reuse creates network namespaces and mounts, which needs root: run it with sudo"
        )
    layers = ":".join(map(str, images.build("haproxy")))
    with (
        tempfile.TemporaryDirectory(prefix="http-reuse.") as folder,
        separate_networks(BALANCER, [server.address for server in ORIGINS], []) as network,
    ):
        path = Path(folder)
        certificate = make_certificate(path)
        node = HAProxy(layers, path / "node", certificate)
        with network.enter_nodes():
            node.start(NODE_CONFIG)
        rates: dict[str, list[float]] = {"http-server-close": [], "http-reuse always": []}
        for round in range(ROUNDS):
            for name, text in zip(rates, (GUIDE_CONFIG, OUR_CONFIG), strict=True):
                rates[name].append(
                    measure_requests_per_second(
                        HAProxy(layers, path / f"{name[5:8]}{round}", certificate), text
                    )
                )
        node.stop()
    for name, measured in rates.items():
        each = " ".join(f"{rate:.0f}" for rate in measured)
        print(f"{name:18} {median(measured):7.0f} requests/s over TLS   ({each})")
    close, reuse = (median(measured) for measured in rates.values())
    print(f"{'ratio':18} {reuse / close:7.2f}")


if __name__ == "__main__":
    main()
