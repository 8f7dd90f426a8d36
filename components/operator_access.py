"""Checks that SSH from the operator's machine can reach the load balancer."""

import os
import socket
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from ipaddress import IPv4Address, IPv4Network

_CHECK_IP = "https://checkip.amazonaws.com"


def find_access_problem(admin_cidrs: Sequence[str], load_balancer: str | None) -> str | None:
    """Returns why SSH cannot reach the load balancer, or `None`. Takes at most 20 s.

    `load_balancer` is its address, if it exists. If SSH answers there, returns `None` without regard to `admin_cidrs`.
    """
    own = find_own_address()
    if own and any(own in IPv4Network(cidr) for cidr in admin_cidrs):
        return None
    if load_balancer:
        if answers_ssh(load_balancer):
            return None
    elif own is None:
        return None
    add = f"pulumi config set --path 'ant-media-cluster:adminCidrs[{len(admin_cidrs)}]' {own or 'ADDRESS'}/32"
    if own:
        return (
            f"ant-media-cluster:adminCidrs is {', '.join(admin_cidrs)}: this machine's address {own} is not in it, so SSH "
            f"cannot reach the load balancer. Run this from an address that is, or add it: {add}"
        )
    return (
        f"SSH at {load_balancer} does not answer, and this machine's public address is unknown ({_CHECK_IP} did not "
        f"answer). If it is not in ant-media-cluster:adminCidrs ({', '.join(admin_cidrs)}), add it: {add}"
    )


def find_own_address() -> IPv4Address | None:
    """Returns the public IPv4 address of this machine, as AWS sees it."""
    # operations/access.py has the same function: the two folders share only cluster/, which is without I/O.
    # SSH does not use the proxy of HTTPS, so its address would be another.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(_CHECK_IP, timeout=5) as answer:
            return IPv4Address(answer.read(64).decode().strip())
    except (OSError, ValueError, HTTPException):
        return None


def answers_ssh(address: str) -> bool:
    """Whether port 22 answers. A refused connection is an answer: the machine boots, and no security group drops packets."""
    for _ in range(3):
        try:
            socket.create_connection((address, 22), timeout=4).close()
        except TimeoutError:
            continue
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True
    return False


def find_agent_problem() -> str | None:
    """Returns why this session's SSH agent makes every remote command fail, or `None`.

    The command provider connects to the agent first, also if it has a key (pulumi-command 1.2.1).
    """
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(path)
    except OSError:
        return f"SSH_AUTH_SOCK is {path}, where no SSH agent answers, so every SSH connection would fail. Run: unset SSH_AUTH_SOCK"
    return None
