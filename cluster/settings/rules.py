"""What single values must be like. Each rule's ValueError says what would do; settings_reader.py puts the key and the value before it."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Annotated
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import AfterValidator, BeforeValidator, ConfigDict, SecretStr, StrictInt, StrictStr
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, ValidationError

MODEL = ConfigDict(alias_generator=to_camel, extra="forbid", validate_default=True)

ACME_DIRECTORIES = {
    "production": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
_PRIVATE_NETWORKS = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
# Examples that people forget to replace (203.0.113.0/24, the third such range, is the sandbox's internet).
_EXAMPLE_NETWORKS = tuple(IPv4Network(text) for text in ("192.0.2.0/24", "198.51.100.0/24"))
_EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org", "example", "invalid", "localhost")
# What AMS's root application and HAProxy answer themselves: an application of that name could not be reached.
_RESERVED_APPLICATIONS = frozenset(
    {"root", "rest", "openapi", "static", "assets", "metrics", "haproxy_stats"}
)

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_INSTANCE_TYPE = re.compile(
    r"[a-z][a-z0-9-]*\.(nano|micro|small|medium|large|([1-9]\d*)?xlarge|metal(-\d+xl)?)"
)
_IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
SUBNET_ID = re.compile(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})")
_EMAIL = re.compile(r"[A-Za-z0-9.!#%&*+/=?^_{|}~-]+@(?P<host>[^@\s]+)")


@dataclass(frozen=True)
class Problem:
    """A value below the one that is being validated, where it lies there, and what would do."""

    place: tuple[str | int, ...]
    value: object
    advice: str


def refuse(problems: Iterable[Problem]) -> None:
    """Ends a validator with all of the problems, which one ValueError could not tell."""
    details = [
        InitErrorDetails(
            type="value_error",
            loc=problem.place,
            input=problem.value,
            ctx={"error": ValueError(problem.advice)},
        )
        for problem in problems
    ]
    if details:
        raise ValidationError.from_exception_data("settings", details)


def full_match(pattern: str, hint: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(hint)
        return text

    return check


def whole(least: int, most: int) -> AfterValidator:
    def check(number: int) -> int:
        if not least <= number <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return number

    return AfterValidator(check)


def _is_example(name: str) -> bool:
    return any(name == example or name.endswith(f".{example}") for example in _EXAMPLE_DOMAINS)


def host_name(text: str) -> str:
    name = text.lower()
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(
            "give a full host name such as live.your-domain.org, without scheme, port, path or wildcard"
        )
    if _is_example(name):
        raise ValueError("this name stands for yours in examples: give a name that you own")
    return name


def certificate_name(text: str) -> str:
    wildcard = "*." if text.startswith("*.") else ""
    return wildcard + host_name(text.removeprefix(wildcard))


def in_zone(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def zone_name(text: str) -> str:
    # Route 53 itself shows zone names with a dot at the end.
    return host_name(text.removesuffix("."))


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        pass
    try:
        meant = IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError("give an IPv4 network such as 10.0.0.0/16, or one address as /32") from None
    raise ValueError(f"bits are set behind the prefix: give {meant}, or {text.partition('/')[0]}/32")


def client_network(text: str) -> str:
    if any(_network(text).subnet_of(example) for example in _EXAMPLE_NETWORKS):
        raise ValueError("these addresses stand for yours in examples: give your own")
    return str(_network(text))


def admin_network(text: str) -> str:
    if _network(text).prefixlen < 8:
        raise ValueError(
            "SSH, the web panel and the statistics are never opened that wide: give your own addresses, /8 or longer"
        )
    return client_network(text)


def private_network(shortest: int, longest: int) -> AfterValidator:
    def check(text: str) -> str:
        network = _network(text)
        if not any(network.subnet_of(private) for private in _PRIVATE_NETWORKS):
            raise ValueError(
                "Ant Media Server trusts its load balancer on private addresses only: "
                "give a network in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
            )
        if not shortest <= network.prefixlen <= longest:
            raise ValueError(f"give a prefix from /{shortest} to /{longest}")
        return str(network)

    return AfterValidator(check)


def not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("give at least one")
    return distinct(items)


def distinct(items: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(items)) < len(items):
        raise ValueError("give each only once")
    return items


def at_most(most: int) -> AfterValidator:
    def check(items: tuple[str, ...]) -> tuple[str, ...]:
        if len(items) > most:
            raise ValueError(f"these are {len(items)}: give at most {most}")
        return items

    return AfterValidator(check)


def application(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError("give an application's name: letters, digits, - and _")
    if name.lower() in _RESERVED_APPLICATIONS:
        raise ValueError(
            "that path belongs to Ant Media Server's root application or to HAProxy: give another name"
        )
    return name


def _instance_type(text: str) -> str:
    if not _INSTANCE_TYPE.fullmatch(text):
        raise ValueError("give an EC2 instance type such as c5.xlarge")
    return text


def image(*names: str) -> AfterValidator:
    def check(text: str) -> str:
        if text not in names and not _IMAGE_ID.fullmatch(text):
            raise ValueError(f"give {', '.join(names)} or the id of an image (ami-…)")
        return text

    return AfterValidator(check)


def email(text: str) -> str:
    match = _EMAIL.fullmatch(text)
    if not match:
        raise ValueError("give an e-mail address")
    try:
        host_name(match["host"])
    except ValueError:
        raise ValueError("give an e-mail address in a domain of yours") from None
    return text


def acme_directory(text: str) -> str:
    url = ACME_DIRECTORIES.get(text, text)
    if not _has_host(url, "https") or re.search(r"\s", url):
        raise ValueError("give production, staging or the https URL of an ACME directory")
    return url


def _has_host(url: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname)
    except ValueError:  # whose text may show the URL
        return False


def secret(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda secret: SecretStr(check(secret.get_secret_value())))


def database_url(url: str) -> str:
    if not _has_host(url, "mongodb", "mongodb+srv", "redis", "rediss"):
        raise ValueError("give a URL with a host: mongodb://…, mongodb+srv://…, redis://… or rediss://…")
    if not re.fullmatch(r"[!#%&()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+", url):
        raise ValueError("percent-encode spaces, quotes, $ and every other special character of the URL")
    return url


def ssh_private_key(text: str) -> str:
    hint = "give an OpenSSH ed25519 private key without passphrase"
    try:
        key = load_ssh_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(hint)
    # `pulumi config set` cuts the newline that the last line of a key file needs.
    return text.rstrip("\n") + "\n"


URL_SAFE_PASSWORD = full_match(
    r"[A-Za-z0-9._~-]{16,128}",
    "give 16 to 128 letters, digits, - . _ or ~ (it becomes part of a URL)",
)
PASSWORD = full_match(
    r"""(?:(?!["'`\\#$])[!-~]){12,128}""",
    "give 12 to 128 printable ASCII characters without spaces, quotes, \\, # or $",
)


def from_json(value: object) -> object:
    """Pulumi hands every value over as text; what is no JSON stays text, for the type's own error to show."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


FromJson = BeforeValidator(from_json)
InstanceType = Annotated[StrictStr, AfterValidator(_instance_type)]
VolumeSize = Annotated[StrictInt, whole(8, 16384)]
Email = Annotated[StrictStr, AfterValidator(email)]
