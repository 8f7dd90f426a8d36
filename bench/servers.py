"""The servers that are compared: our configuration, as rendered for a default machine, and its rivals."""

from dataclasses import dataclass, replace
from ipaddress import ip_address

from bench.machine import HERE, NODES, OPEN_FILES, Machine
from cluster.haproxy_config import (
    RESERVED_FILES,
    HAProxyConfig,
    Server,
    calculate_connection_limits,
    render_haproxy_cfg,
)
from tests.integration.haproxy.haproxy_process import DOMAIN

DEFAULT_MEMORY_MIB = 4096
"""The memory of loadBalancer.instanceType's default, c5.large."""


def reduce_limits(text: str) -> str:
    """Returns haproxy.cfg with limits that this machine allows: HAProxy does not start with fewer files than `ulimit-n`."""
    connections = (OPEN_FILES - RESERVED_FILES) // 2
    default = calculate_connection_limits(DEFAULT_MEMORY_MIB)
    if connections >= default.maxconn:
        return text
    text = text.replace(f"maxconn {default.maxconn}", f"maxconn {connections}")
    return text.replace(f"ulimit-n {default.ulimit_n}", f"ulimit-n {OPEN_FILES}")


def render_ours(edges: int) -> str:
    """Returns our haproxy.cfg for a default machine, two origins and a number of edges."""
    addresses = [str(ip_address(NODES[0]) + number) for number in range(2 + edges)]
    config = HAProxyConfig(
        DOMAIN,
        origins=tuple(Server(f"origin{number}", addresses[number - 1]) for number in (1, 2)),
        edges=tuple(Server(f"edge{number}", addresses[number + 1]) for number in range(1, edges + 1)),
        applications=("LiveApp", "WebRTCAppEE"),
        rtmps_port=0,
        memory_mib=DEFAULT_MEMORY_MIB,
        hsts_max_age=0,
        admin_cidrs=("203.0.113.0/24",),
    )
    return reduce_limits(render_haproxy_cfg(config))


@dataclass(frozen=True)
class LoadBalancer:
    """One column of the table."""

    name: str
    title: str
    file: str
    text: str
    http2: bool

    def install(self, machine: Machine) -> list[str]:
        """Writes the configuration and returns the command that serves it."""
        machine.write(self.file, self.text)
        if self.file.endswith(".conf"):
            return ["nginx", "-c", f"/{self.file}", "-g", "daemon off;"]
        return ["haproxy", "-db", "-f", f"/{self.file}", "-f", "/etc/haproxy/credentials.cfg"]


def read(name: str) -> str:
    return (HERE / "rivals" / name).read_text()


LOAD_BALANCERS = (
    LoadBalancer("ours", "ours", "etc/haproxy/ours.cfg", render_ours(edges=2), http2=True),
    LoadBalancer("guide", "guide", "etc/haproxy/guide.cfg", read("guide.cfg"), http2=True),
    LoadBalancer("nginx", "nginx", "etc/nginx/rival.conf", read("nginx.conf"), http2=False),
    LoadBalancer("tcp", "TCP mode", "etc/haproxy/tcp.cfg", reduce_limits(read("tcp.cfg")), http2=False),
)


def allow_tls13(server: LoadBalancer) -> LoadBalancer:
    """Returns the server with TLS 1.3, which Ant Media's nginx does not offer."""
    return replace(
        server, text=server.text.replace("ssl_protocols TLSv1.2;", "ssl_protocols TLSv1.2 TLSv1.3;")
    )


def use_own_key(server: LoadBalancer) -> LoadBalancer:
    """Returns the server with the key that its instructions make: certbot made RSA keys when the guide was written."""
    return (
        replace(server, text=server.text.replace("cluster.pem", "rsa.pem"))
        if server.name == "guide"
        else server
    )
