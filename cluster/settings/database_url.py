"""Validates the URL of the user's own cluster registry, by the rules of Ant Media Server's clients.

Ant Media Server passes the URL to MongoDB's Java driver, or as one server's address to Redisson 3.24.3 (pom.xml of
ant-media/ant-media-server-parent). What these cannot use would stop every node at its start, so it is refused here. Messages
do not contain the URL, which is a secret.
"""

import re

_FORMS = "mongodb://…, mongodb+srv://…, redis://… or rediss://…"
_CHARACTERS = re.compile(r"[!%&()*+,\-./0-9:;=?@A-Z_a-z~]+")
_HOST = re.compile(r"[A-Za-z0-9_.-]+")
_REDIS_FORM = "give redis://USER:PASSWORD@HOST:PORT or rediss://USER:PASSWORD@HOST:PORT; USER may be empty"


def validate_database_url(url: str) -> str:
    """Refuses URLs of other databases than MongoDB and Redis, and forms that Ant Media Server cannot use."""
    scheme, separator, rest = url.partition("://")
    if not separator or not rest or scheme not in ("mongodb", "mongodb+srv", "redis", "rediss"):
        raise ValueError(f"give a URL with a host: {_FORMS}")
    if not _CHARACTERS.fullmatch(rest):
        raise ValueError("percent-encode spaces, quotes, $, # and every other special character of the URL")
    if scheme.startswith("redis"):
        _check_redis(rest)
    else:
        _check_mongodb(rest, srv=scheme == "mongodb+srv")
    return url


def _check_redis(rest: str) -> None:
    """Applies the rules of Redisson's class RedisURI."""
    authority, _, path = rest.partition("/")
    credentials, at, server = authority.rpartition("@")
    if "?" in rest or path not in ("", "0"):
        raise ValueError(
            "Ant Media Server ignores a path and options of a Redis URL and uses database 0: end the URL with the port"
        )
    if "," in server:
        raise ValueError(
            "Ant Media Server uses one Redis server: give one host, such as the primary endpoint"
        )
    if "%" in credentials:
        raise ValueError(
            "Ant Media Server does not decode % in the user and password of a Redis URL: choose a password of letters,"
            " digits, - . _ and ~"
        )
    _, colon, password = credentials.partition(":")
    if (at and not (colon and password)) or "@" in credentials:
        raise ValueError(_REDIS_FORM)
    if ":" not in server:
        raise ValueError("give the port, such as redis://HOST:6379: Ant Media Server has no default")
    _check_server(server)


def _check_mongodb(rest: str, *, srv: bool) -> None:
    """Applies the rules of the Java driver's class ConnectionString."""
    authority, _, rest_of_url = rest.partition("/")
    if "?" in authority:
        raise ValueError("give a / before the ? of the options: mongodb://HOST/?OPTIONS")
    credentials, at, servers = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    if (at and not user) or "@" in credentials or ":" in password:
        raise ValueError("give a user name, and percent-encode : and @ in user name and password")
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise ValueError("write % as %25: a % must be followed by two hexadecimal digits")
    if any("=" not in option for option in re.split("[&;]", rest_of_url.partition("?")[2]) if option):
        raise ValueError("give every option of the URL a value: ?OPTION=VALUE&OPTION=VALUE")
    if not srv:
        for server in servers.split(","):
            _check_server(server)
    elif not _HOST.fullmatch(servers) or servers.count(".") < 2:
        raise ValueError(
            "mongodb+srv:// takes one host name of three or more parts, without a port: mongodb+srv://USER:PASSWORD@HOST/"
        )


def _check_server(server: str) -> None:
    """Checks HOST or HOST:PORT."""
    host, colon, port = server.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f"give a URL with a host name or IPv4 address: {_FORMS}")
    if colon and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError("give a port from 1 to 65535")
