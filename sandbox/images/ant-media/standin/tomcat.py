"""What the original's servlet container does to every request before an application sees it."""

import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

# Connector: characters that a request target may not hold, and encodings that are refused, not decoded.
_REFUSED_RAW = re.compile(r'[\\"<>\[\]^`{|}\x00-\x20\x7f]')
_REFUSED_ENCODED = re.compile(r"%(2f|5c|00)", re.IGNORECASE)
# RemoteIpValve's default internalProxies.
_INTERNAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "169.254.0.0/16", "127.0.0.0/8",
        "100.64.0.0/10", "::1/128", "fe80::/10", "fc00::/7",
    )
)  # fmt: skip

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadRequestError(Exception):
    """Tomcat answers 400."""


def normalise(target: str) -> str:
    """The path that applications are chosen and resources found by.

    Parameters go before decoding, and dots are resolved after it: so `/LiveApp/..;/x` and `/LiveApp/%2e%2e/x`
    are both `/x`, which is why a balancer cannot go by the prefix of the raw path.
    """
    path = target.partition("?")[0]
    if _REFUSED_RAW.search(path) or _REFUSED_ENCODED.search(path):
        raise BadRequestError("character")
    path = re.sub(r";[^/]*", "", path)
    try:
        path = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("encoding") from error
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if not segments:
                raise BadRequestError("above the root")
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    directory = segments and path.endswith(("/", "/.", "/.."))
    return "/" + "/".join(segments) + ("/" if directory else "")


@dataclass(frozen=True)
class Client:
    address: Address
    secure: bool


def remote_ip_valve(peer: str, forwarded_for: Iterable[str], forwarded_proto: Iterable[str]) -> Client:
    """Who sent the request.

    Raises ValueError for an address that is none (`unknown`), which the original answers with 500.
    """
    address = ipaddress.ip_address(peer)
    if not _internal(address):
        return Client(address, secure=False)
    for value in reversed(_values(forwarded_for)):
        address = ipaddress.ip_address(value)
        if not _internal(address):
            break
    protocols = _values(forwarded_proto)
    return Client(address, secure=bool(protocols) and all(value.lower() == "https" for value in protocols))


def _internal(address: Address) -> bool:
    return any(address in network for network in _INTERNAL)


def _values(headers: Iterable[str]) -> list[str]:
    return [value.strip() for header in headers for value in header.split(",")]


@dataclass
class Session:
    id: str = field(default_factory=lambda: secrets.token_hex(16).upper())
    user: str | None = None


class Sessions:
    """The sessions of one context. They live on one node only, which is why a balancer must be sticky."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sessions: dict[str, Session] = {}

    def find(self, cookies: Iterable[str]) -> Session | None:
        # Root's cookie is sent to applications too, under the same name: any of them may be the right one.
        ids = re.findall(r"(?:^|;\s*)JSESSIONID=([^;\s]*)", "; ".join(cookies))
        return next((self._sessions[id_] for id_ in ids if id_ in self._sessions), None)

    def create(self) -> Session:
        session = Session()
        self._sessions[session.id] = session
        return session

    def cookie(self, session: Session, *, secure: bool) -> str:
        return f"JSESSIONID={session.id}; Path={self._path};{' Secure;' if secure else ''} HttpOnly"
