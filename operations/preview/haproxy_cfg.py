"""Finds the change of haproxy.cfg in a preview and reads servers, applications and the port of RTMPS from the file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from operations.preview.changes import Step


@dataclass(frozen=True)
class HAProxyCfgChange:
    old: str | None
    """None when the load balancer is new."""
    new: str


def find_haproxy_cfg_change(steps: Iterable[Step]) -> HAProxyCfgChange | None:
    """Returns None when haproxy.cfg does not change."""
    for step in steps:
        old, new = step.old.get("stdin"), step.new.get("stdin")
        if step.script[0] == "apply-haproxy-config.sh" and new and old != new:
            return HAProxyCfgChange(old, new)
    return None


def read_servers(haproxy_cfg: str) -> dict[str, str]:
    """Returns the addresses of the nodes by name, without local servers (certbot) and the server of the metrics."""
    servers = re.findall(r"^\s*server (\S+) (\d+\.\d+\.\d+\.\d+):", haproxy_cfg, re.MULTILINE)
    return {name: address for name, address in servers if not address.startswith(("127.", "0."))}


def read_applications(haproxy_cfg: str) -> list[str]:
    """Returns the applications that the media frontends serve, in the order of the setting."""
    rules = re.findall(r"deny_status 404 unless \{ path,field\(2,/\) -m str ([^}]*)\}", haproxy_cfg)
    return list(dict.fromkeys(name for rule in rules for name in rule.split()))


def read_rtmps_port(haproxy_cfg: str) -> str | None:
    """Returns the port of RTMPS, or `None` if it is closed."""
    bind = re.search(r"^frontend rtmps .*\n\s*bind :(\d+)", haproxy_cfg, re.MULTILINE)
    return bind and bind[1]
