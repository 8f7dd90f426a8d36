"""The load balancer's world: HAProxy and every node at their real ports, on a network of the tests' own."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clients import CLIENT
from dummy_node import Node
from haproxy_process import BALANCER, DOMAIN, HAProxy
from network_namespace import Network, own_network

from components.haproxy_config import HAProxyConfig, Server, render

ORIGINS = tuple(Server(f"origin{n}", f"10.0.0.{7 + n}") for n in (1, 2))
EDGES = tuple(Server(f"edge{n}", f"10.0.1.{250 - n}") for n in (1, 2, 3))
CLUSTER = HAProxyConfig(DOMAIN, ORIGINS, EDGES[:2], ("LiveApp", "WebRTCAppEE", "live"), 1024)
GROWN = replace(CLUSTER, edges=EDGES)

IMAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ant-media-cluster/images"
HAPROXY_IMAGE = Path(__file__).parents[2] / "sandbox/images/haproxy.sh"


@pytest.fixture(scope="session")
def layers() -> str:
    """The folders that make up a Debian 13 tree with HAProxy, as an overlay's `lowerdir`."""
    base = Path(os.environ.get("DEBIAN_13") or IMAGES / "debian-13")
    layer = IMAGES / "haproxy-tests"
    if not layer.exists():
        work, root, upper = (layer.with_name(f"{layer.name}.{part}") for part in ("work", "root", "new"))
        for folder in (work, root, upper):
            folder.mkdir(parents=True, exist_ok=True)
        mount = 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4" && exec bash "$5" "$4"'
        command = ["bash", "-c", mount, "", str(base), str(upper), str(work), str(root), str(HAPROXY_IMAGE)]
        subprocess.run(["unshare", "--mount", "--propagation", "private", "--", *command], check=True, timeout=300)
        upper.rename(layer)
    return f"{layer}:{base}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}"]
    pair = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *pair], check=True, capture_output=True)
    pem = folder / "both.pem"
    pem.write_bytes((folder / "certificate").read_bytes() + (folder / "key").read_bytes())
    return pem


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[Network]:
    with own_network(BALANCER, [server.address for server in ORIGINS + EDGES], [CLIENT]) as network:
        yield network


@pytest.fixture(scope="module")
def nodes(network: Network) -> Iterator[dict[str, Node]]:
    with network.at_nodes():
        running = {server.name: Node(server.name, server.address) for server in ORIGINS + EDGES}
    yield running
    for node in running.values():
        node.stop()


@dataclass(frozen=True)
class Balancer:
    """HAProxy in front of two origins and two edges."""

    haproxy: HAProxy
    nodes: dict[str, Node]


@pytest.fixture(scope="module")
def balancer(
    layers: str, certificate: Path, nodes: dict[str, Node], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    haproxy = HAProxy(layers, tmp_path_factory.mktemp("haproxy"), certificate)
    haproxy.start(render(CLUSTER))
    yield Balancer(haproxy, nodes)
    haproxy.stop()
