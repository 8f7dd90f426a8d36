"""Request processing of Tomcat, the original's servlet container: paths, client addresses, sessions."""

import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

# Characters that Tomcat's connector rejects in a request target, and percent-encodings that it rejects instead of decoding.
_REJECTED_CHARACTERS = re.compile(r'[\\"<>\[\]^`{|}\x00-\x20\x7f]')
_REJECTED_ENCODINGS = re.compile(r"%(2f|5c|00)", re.IGNORECASE)
# RemoteIpValve's default internalProxies.
_INTERNAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "169.254.0.0/16", "127.0.0.0/8",
        "100.64.0.0/10", "::1/128", "fe80::/10", "fc00::/7",
    )
)  # fmt: skip

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadRequestError(Exception):
    """Tomcat returns 400."""


def normalize_path(target: str) -> str:
    """Returns the path by which the application and the resource are found.

    Removes parameters, decodes, then resolves dots. `/LiveApp/..;/x` and `/LiveApp/%2e%2e/x` are thus both `/x`,
    which is why a load balancer cannot decide by the prefix of the raw path.
    """
    path = target.partition("?")[0]
    if _REJECTED_CHARACTERS.search(path) or _REJECTED_ENCODINGS.search(path):
        raise BadRequestError("invalid character")
    path = re.sub(r";[^/]*", "", path)
    try:
        path = unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("invalid encoding") from error
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


def identify_client(peer: str, forwarded_for: Iterable[str], forwarded_proto: Iterable[str]) -> Client:
    """Returns address and protocol of the client, as Tomcat's RemoteIpValve does.

    Raises ValueError if a forwarded address is invalid (`unknown`). The original returns 500 for it.
    """
    address = ipaddress.ip_address(peer)
    if not _is_internal(address):
        return Client(address, secure=False)
    for value in reversed(_split_values(forwarded_for)):
        address = ipaddress.ip_address(value)
        if not _is_internal(address):
            break
    protocols = _split_values(forwarded_proto)
    return Client(address, secure=bool(protocols) and all(value.lower() == "https" for value in protocols))


def _is_internal(address: Address) -> bool:
    return any(address in network for network in _INTERNAL_NETWORKS)


def _split_values(headers: Iterable[str]) -> list[str]:
    return [value.strip() for header in headers for value in header.split(",")]


@dataclass
class Session:
    id: str = field(default_factory=lambda: secrets.token_hex(16).upper())
    user: str | None = None


class Sessions:
    """The sessions of one context. A session exists on one node only, so the load balancer must be sticky."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sessions: dict[str, Session] = {}

    def find(self, cookies: Iterable[str]) -> Session | None:
        # Clients send the root context's cookie of the same name to applications too, so all values are tried.
        ids = re.findall(r"(?:^|;\s*)JSESSIONID=([^;\s]*)", "; ".join(cookies))
        return next((self._sessions[id_] for id_ in ids if id_ in self._sessions), None)

    def create(self) -> Session:
        session = Session()
        self._sessions[session.id] = session
        return session

    def format_cookie(self, session: Session, *, secure: bool) -> str:
        return f"JSESSIONID={session.id}; Path={self._path};{' Secure;' if secure else ''} HttpOnly"
