"""The internet namespace and the VPCs: bridges, addresses, 1:1 NAT and the egress filter."""

import json
import socket
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from sandbox.cloud import addresses
from sandbox.cloud.ec2 import Instance
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

LINK_NETWORKS = IPv4Network(addresses.LINKS)

EGRESS = f"""\
table ip egress {{
  counter escaped {{ }}
  set destinations {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size 128; }}
  chain leaving {{
    ip daddr {{ 127.0.0.0/8, {addresses.SERVICES}, {addresses.PUBLIC}, {addresses.LINKS} }} accept
    counter name escaped
    meta l4proto {{ tcp, udp }} add @destinations {{ ip daddr . meta l4proto . th dport }}
    meta l4proto != {{ tcp, udp }} add @destinations {{ ip daddr . meta l4proto . 0 }}
    reject with icmp admin-prohibited
  }}
  chain output {{ type filter hook output priority filter; jump leaving; }}
  chain forward {{ type filter hook forward priority filter; jump leaving; }}
  chain input {{
    type filter hook input priority filter;
    # package servers are for machines only
    ct state new ip daddr {addresses.PACKAGES} ip saddr != {addresses.PUBLIC} meta l4proto tcp reject with tcp reset
  }}
}}
"""


def ip(*arguments: str, namespace: str = "") -> None:
    """Runs `ip`, in this network namespace unless one is named."""
    _run("ip", *(("-n", namespace) if namespace else ()), *arguments)


def nft(text: str, namespace: str = "") -> None:
    """Loads nftables rules, in this network namespace unless one is named."""
    _run(*(("ip", "netns", "exec", namespace) if namespace else ()), "nft", "-f", "-", text=text)


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}".rstrip())


def _sysctl(*settings: str, namespace: str = "") -> None:
    _run(*(("ip", "netns", "exec", namespace) if namespace else ()), "sysctl", "-q", "-w", *settings)


def add_namespace(name: str) -> None:
    """Creates a network namespace with IPv4 and loopback (::1 included)."""
    ip("netns", "add", name)
    _sysctl(
        "net.ipv6.conf.default.disable_ipv6=1",
        *(f"net.ipv4.conf.{of}.rp_filter=0" for of in ("all", "default")),
        namespace=name,
    )
    ip("link", "set", "lo", "up", namespace=name)


def _route_packets(namespace: str = "") -> None:
    settings = ("ip_forward=1", "conf.all.send_redirects=0", "conf.default.send_redirects=0")
    _sysctl(*(f"net.ipv4.{setting}" for setting in settings), namespace=namespace)
    if Path("/proc/sys/net/bridge").exists():
        # Otherwise NAT applies to bridged packets, and a machine cannot reach its own public address.
        _sysctl("net.bridge.bridge-nf-call-iptables=0", namespace=namespace)


def build_internet(package_servers: int) -> None:
    """Turns this process's network namespace into the internet namespace: addresses, routes and egress filter."""
    namespaces = Path("/run/netns")
    namespaces.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "netns", str(namespaces))
    _sysctl("net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.conf.all.rp_filter=0")
    _route_packets()
    ip("link", "set", "lo", "up")
    clients = (addresses.OPERATOR, addresses.MONITOR, addresses.STRANGER)
    services = (addresses.API, addresses.AWS, addresses.ACME, addresses.DNS)
    for address in (*clients, *services, *(package_address(number) for number in range(package_servers))):
        ip("address", "add", f"{address}/32", "dev", "lo")
    # Otherwise the kernel sends from the address that it sends to, and checkip.amazonaws.com answers its own.
    ip("route", "replace", "local", addresses.AWS, "dev", "lo", "table", "local", "src", addresses.OPERATOR)
    # Packets need a route before the egress filter can count and reject them.
    ip("link", "add", "nowhere", "type", "bridge", "mcast_snooping", "0")
    ip("link", "set", "nowhere", "multicast", "off", "up")
    ip("route", "add", "default", "dev", "nowhere", "src", addresses.OPERATOR)
    for network in (addresses.SERVICES, addresses.PUBLIC, addresses.LINKS):
        ip("route", "add", "unreachable", network)
    nft(EGRESS)


def package_address(number: int) -> str:
    """Returns the address of the nth package server."""
    return str(IPv4Network(addresses.PACKAGES)[number + 1])


def read_escaped_traffic(process: int) -> tuple[int, list[str]]:
    """Returns how many packets the egress filter has rejected, and their destinations.

    `process` is any process in the internet namespace.
    """
    command = ["nsenter", f"--target={process}", "--net", "nft", "-j", "list", "table", "ip", "egress"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    packets, destinations = 0, list[str]()
    for item in json.loads(text)["nftables"]:
        packets += item.get("counter", {}).get("packets", 0)
        for element in item.get("set", {}).get("elem", []):
            address, protocol, port = element.get("elem", {}).get("val", element)["concat"]
            destinations.append(f"{address} {protocol} {port}")
    return packets, sorted(destinations)


def render_vpc(instances: Iterable[Instance]) -> str:
    """Returns a VPC's nftables rules: 1:1 NAT, and NAT gateways; other instances without a public address reach only DNS."""
    instances = list(instances)
    pairs = sorted((i.private_address, i.public_address) for i in instances if i.public_address)
    behind_nat = sorted(
        (i.private_address, i.nat_address) for i in instances if i.nat_address and not i.public_address
    )
    rules = {"prerouting": list[str](), "postrouting": list[str](), "forward": list[str]()}
    if pairs:
        to_private = ", ".join(f"{public} : {private}" for private, public in pairs)
        to_public = ", ".join(f"{private} : {public}" for private, public in pairs)
        known = ", ".join(private for private, _ in pairs)
        rules["prerouting"] = [f"dnat to ip daddr map {{ {to_private} }}"]
        rules["postrouting"] = [
            f'oifname "internet" snat to ip saddr map {{ {to_public} }}',
            f"ct status dnat snat to ip saddr map {{ {to_public} }}",
        ]
        rules["forward"] = [
            f'oifname "internet" ip saddr {{ {known} }} accept',
            'iifname "internet" ct status dnat accept',
        ]
    if behind_nat:
        sources = ", ".join(f"{private} : {public}" for private, public in behind_nat)
        rules["postrouting"].append(f'oifname "internet" snat to ip saddr map {{ {sources} }}')
        known = ", ".join(private for private, _ in behind_nat)
        rules["forward"].append(f'oifname "internet" ip saddr {{ {known} }} accept')
    lines = [
        "table ip vpc",
        "delete table ip vpc",
        "table ip vpc {",
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat;",
        *(f"    {rule}" for rule in rules["prerouting"]),
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat;",
        *(f"    {rule}" for rule in rules["postrouting"]),
        f'    oifname "internet" ip daddr {addresses.DNS} masquerade',
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy drop;",
        "    ct state established,related accept",
        '    iifname "subnets" oifname "subnets" accept',
        f'    oifname "internet" ip daddr {addresses.DNS} accept',
        *(f"    {rule}" for rule in rules["forward"]),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


class Vpc:
    """The network namespace of a VPC: one bridge for all subnets and a link to the internet namespace."""

    def __init__(self, id: str, number: int) -> None:
        self.id = id
        self.number = number
        self._gateways: set[IPv4Network] = set()
        self._public: set[str] = set()
        self._rules = ""
        internet_side, vpc_side = (str(LINK_NETWORKS[4 * number + side]) for side in (1, 2))
        self._vpc_side = vpc_side
        add_namespace(id)
        _route_packets(id)
        ip("link", "add", f"vpc{number}", "type", "veth", "peer", "name", "internet", "netns", id)
        ip("address", "add", f"{internet_side}/30", "dev", f"vpc{number}")
        ip("link", "set", f"vpc{number}", "up")
        ip("address", "add", f"{vpc_side}/30", "dev", "internet", namespace=id)
        ip("link", "set", "internet", "up", namespace=id)
        ip("route", "add", "default", "via", internet_side, namespace=id)
        # Link-local addresses are not routed.
        ip("route", "add", "unreachable", "169.254.0.0/16", namespace=id)
        # Packets to a private address that no machine has are dropped, as in AWS.
        for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
            ip("route", "add", "blackhole", private, namespace=id)
        ip("link", "add", "subnets", "type", "bridge", namespace=id)
        ip("link", "set", "subnets", "up", namespace=id)
        ip("address", "add", f"{addresses.METADATA}/32", "dev", "subnets", namespace=id)

    def open_metadata_listener(self) -> socket.socket:
        """Returns a listening socket for the VPC's metadata service."""

        def listen() -> socket.socket:
            with Path("/run/netns", self.id).open("rb") as namespace:
                setns(namespace.fileno(), CLONE_NEWNET)
            return socket.create_server((addresses.METADATA, 80), backlog=128)

        with ThreadPoolExecutor(1) as thread:  # setns changes the calling thread only
            return thread.submit(listen).result()

    def attach(self, instance: Instance) -> None:
        """Creates the instance's network namespace and connects it to the VPC, before the machine boots."""
        if instance.network not in self._gateways:
            gateway = f"{instance.network[1]}/{instance.network.prefixlen}"
            ip("address", "add", gateway, "dev", "subnets", namespace=self.id)
            self._gateways.add(instance.network)
        add_namespace(instance.id)
        port = _bridge_port(instance)
        ip(
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            "ens5",
            # Derived from the private address, so that neighbours reach a replaced machine at once, as in AWS.
            "address",
            "02:00:" + ":".join(f"{byte:02x}" for byte in IPv4Address(instance.private_address).packed),
            "netns",
            instance.id,
            namespace=self.id,
        )
        ip("link", "set", port, "master", "subnets", "up", namespace=self.id)
        address = f"{instance.private_address}/{instance.network.prefixlen}"
        ip("address", "add", address, "dev", "ens5", namespace=instance.id)
        ip("link", "set", "ens5", "up", namespace=instance.id)
        ip("route", "add", "default", "via", str(instance.network[1]), namespace=instance.id)

    def update_nat(self, instances: Sequence[Instance]) -> None:
        """Updates NAT rules and routes to the public addresses of the running instances."""
        rules = render_vpc(instances)
        if rules == self._rules:
            return
        nft(rules, self.id)
        self._rules = rules
        public = {address for i in instances if (address := i.public_address or i.nat_address)}
        for address in sorted(public - self._public):
            ip("route", "replace", address, "via", self._vpc_side, "src", addresses.OPERATOR)
        for address in sorted(self._public - public):
            subprocess.run(
                ["ip", "route", "del", address, "via", self._vpc_side], check=False, stderr=subprocess.DEVNULL
            )
        self._public = public

    def remove(self) -> None:
        """Removes the namespace and the routes to it."""
        self.update_nat([])
        ip("netns", "del", self.id)

    def detach(self, instance: Instance) -> None:
        """Removes the instance's network namespace."""
        ip("link", "del", _bridge_port(instance), namespace=self.id)
        ip("netns", "del", instance.id)


def _bridge_port(instance: Instance) -> str:
    return f"i{instance.id[-12:]}"
