"""Validates single values of the settings.

A `validate_…` function returns the value, normalized, or raises ValueError. reader.py puts the
setting's key and value before the text of the error, so the text gives the remedy.
"""

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

from cluster.port_table import SecurityGroup, ingress_rules

MODEL_CONFIG = ConfigDict(alias_generator=to_camel, extra="forbid", validate_default=True)

ACME_DIRECTORIES = {
    "production": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
_PRIVATE_NETWORKS = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
# Networks of examples. The third such network, 203.0.113.0/24, is missing because the sandbox uses it.
_EXAMPLE_NETWORKS = tuple(IPv4Network(text) for text in ("192.0.2.0/24", "198.51.100.0/24"))
_EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org", "example", "invalid", "localhost")
# AMS's root application and HAProxy answer these paths, so an application with this name would be unreachable.
_RESERVED_APPLICATIONS = frozenset(
    {"root", "rest", "openapi", "static", "assets", "metrics", "haproxy_stats"}
)

# Those of every cluster, and local ones: of systemd-resolved, certbot's challenge server and node exporter.
_LOAD_BALANCER_PORTS = frozenset({53, 8888, 9100}) | {
    rule.from_port
    for rule in ingress_rules(rtmps_port=0, srt=False, database=True, monitoring=True)
    if rule.security_group in (SecurityGroup.LOAD_BALANCER, SecurityGroup.RTMP)
}

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_INSTANCE_TYPE = re.compile(
    r"[a-z][a-z0-9-]*\.(nano|micro|small|medium|large|([1-9]\d*)?xlarge|metal(-\d+xl)?)"
)
_IMAGE_ID = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
_EMAIL = re.compile(r"[A-Za-z0-9.!#%&*+/=?^_{|}~-]+@(?P<host>[^@\s]+)")


@dataclass(frozen=True)
class Problem:
    """A wrong value inside the value that a validator checks."""

    path: tuple[str | int, ...]
    """Keys and indexes that lead to the wrong value, empty for the checked value itself."""
    value: object
    """None: errors do not show it. Under a name that nobody knows, it may be a secret."""
    message: str
    """What is wrong if it is not obvious, and the remedy."""


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raises one pydantic ValidationError with all problems, or does nothing if there are none.

    A validator can raise only one ValueError; this lets it report several problems.
    """
    details = [
        InitErrorDetails(
            type="value_error",
            loc=problem.path,
            input=problem.value,
            ctx={"error": ValueError(problem.message)},
        )
        for problem in problems
    ]
    if details:
        raise ValidationError.from_exception_data("settings", details)


def pattern_validator(pattern: str, remedy: str) -> Callable[[str], str]:
    """Returns a function that refuses texts that do not match the whole pattern."""

    def validate(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(remedy)
        return text

    return validate


def integer_between(minimum: int, maximum: int) -> AfterValidator:
    """Accepts integers from `minimum` to `maximum`, both included."""

    def validate(number: int) -> int:
        if not minimum <= number <= maximum:
            raise ValueError(f"give a whole number from {minimum} to {maximum}")
        return number

    return AfterValidator(validate)


def validate_rtmps_port(port: int) -> int:
    """Returns the port; 0 stands for none. Refuses the ports of the load balancer's other services."""
    if not 0 <= port <= 65535:
        raise ValueError("give a port from 1 to 65535, or 0 for no RTMPS")
    if port in _LOAD_BALANCER_PORTS:
        raise ValueError(
            "the load balancer uses this port for something else: give another one, such as 1936"
        )
    return port


def validate_host_name(text: str) -> str:
    """Returns the host name in lower case. Refuses single labels, wildcards, IP addresses and example names."""
    name = text.lower()
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(
            "give a full host name such as live.your-domain.org, without scheme, port, path or wildcard"
        )
    if any(name == example or name.endswith(f".{example}") for example in _EXAMPLE_DOMAINS):
        raise ValueError("this is an example name: give a host name in a domain that you own")
    return name


def validate_certificate_name(text: str) -> str:
    """Returns a host name, or a wildcard such as `*.your-domain.org`, in lower case."""
    wildcard = "*." if text.startswith("*.") else ""
    name = wildcard + validate_host_name(text.removeprefix(wildcard))
    if len(name) > 253:
        raise ValueError("the wildcard has more than 253 characters: give a shorter name")
    return name


def validate_zone_name(text: str) -> str:
    """Returns the name of a DNS zone, without the final dot that Route 53 shows."""
    return validate_host_name(text.removesuffix("."))


def is_in_zone(name: str, zone: str) -> bool:
    """True if a record of the name belongs to the DNS zone: the name is the zone's or ends in it."""
    return name == zone or name.endswith(f".{zone}")


def _parse_network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        pass
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError("give an IPv4 network such as 10.0.0.0/16, or one address as /32") from None
    address = text.partition("/")[0]
    raise ValueError(f"the address has host bits set: give {network} for the network, or {address}/32")


def validate_client_network(text: str) -> str:
    """Returns an IPv4 network in CIDR notation. Refuses the networks of examples."""
    network = _parse_network(text)
    if any(network.subnet_of(example) for example in _EXAMPLE_NETWORKS):
        raise ValueError("this is an example network: give your own addresses")
    return str(network)


def _narrow_network_validator(purpose: str, remedy: str) -> Callable[[str], str]:
    """Returns a function like `validate_client_network` that also refuses networks with more addresses than a /8."""

    def validate(text: str) -> str:
        if _parse_network(text).prefixlen < 8:
            raise ValueError(
                f"too many addresses for access to {purpose}: {remedy}, with a prefix of /8 or longer"
            )
        return validate_client_network(text)

    return validate


validate_admin_network = _narrow_network_validator(
    "SSH, the web panel and the statistics", "give your own addresses"
)
validate_monitoring_network = _narrow_network_validator(
    "the metrics", "give the addresses of your Prometheus servers"
)


def private_network(shortest_prefix: int, longest_prefix: int) -> AfterValidator:
    """Accepts private IPv4 networks (RFC 1918) with a prefix length between the two, both included."""

    def validate(text: str) -> str:
        network = _parse_network(text)
        if not any(network.subnet_of(private) for private in _PRIVATE_NETWORKS):
            raise ValueError(
                "Ant Media Server trusts a load balancer only on a private address: "
                "give a network in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
            )
        if not shortest_prefix <= network.prefixlen <= longest_prefix:
            raise ValueError(f"give a prefix from /{shortest_prefix} to /{longest_prefix}")
        return str(network)

    return AfterValidator(validate)


def validate_unique_items(items: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses a list in which an item repeats."""
    if len(set(items)) < len(items):
        raise ValueError("an item repeats: give each only once")
    return items


def validate_one_or_more_unique_items(items: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses an empty list, and a list in which an item repeats."""
    if not items:
        raise ValueError("give at least one")
    return validate_unique_items(items)


def at_most_items(maximum: int) -> AfterValidator:
    """Accepts lists of at most `maximum` items."""

    def validate(items: tuple[str, ...]) -> tuple[str, ...]:
        if len(items) > maximum:
            raise ValueError(f"the list has {len(items)} items: give at most {maximum}")
        return items

    return AfterValidator(validate)


def validate_application(name: str) -> str:
    """Returns the name of an AMS application, which is also the first segment of its URL path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError("give the name of an application: letters, digits, - and _, at most 64")
    if name.lower() in _RESERVED_APPLICATIONS:
        raise ValueError(
            "Ant Media Server's root application or HAProxy already uses this path: give another name"
        )
    return name


def _validate_instance_type(text: str) -> str:
    if not _INSTANCE_TYPE.fullmatch(text):
        raise ValueError("give an EC2 instance type such as c5.xlarge")
    return text


def image_name(*names: str) -> AfterValidator:
    """Accepts one of the names, or the id of an image (`ami-…`)."""

    def validate(text: str) -> str:
        if text not in names and not _IMAGE_ID.fullmatch(text):
            raise ValueError(f"give {', '.join(names)} or the id of an image (ami-…)")
        return text

    return AfterValidator(validate)


def _validate_email(text: str) -> str:
    match = _EMAIL.fullmatch(text)
    if not match:
        raise ValueError("give an email address")
    try:
        validate_host_name(match["host"])
    except ValueError:
        raise ValueError("give an email address in a domain that you own") from None
    return text


def validate_acme_directory(text: str) -> str:
    """Returns the URL of an ACME directory, from that URL or a name in `ACME_DIRECTORIES`."""
    url = ACME_DIRECTORIES.get(text, text)
    if not _is_url(url, "https") or re.search(r"\s", url):
        raise ValueError("give production, staging or the https URL of an ACME directory")
    return url


def _is_url(text: str, *schemes: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname)
    except ValueError:
        return False


def secret_validator(validate: Callable[[str], str]) -> AfterValidator:
    """Applies a validator of texts to the text of a secret."""
    return AfterValidator(lambda secret: SecretStr(validate(secret.get_secret_value())))


validate_allocation_id = pattern_validator(
    r"eipalloc-([0-9a-f]{8}|[0-9a-f]{17})", "give the allocation id of an Elastic IP (eipalloc-…)"
)


def validate_path(path: str) -> str:
    """Returns the path of a file in the repository, relative to its root."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path) or ".." in path.split("/"):
        raise ValueError(
            "give the path of a file in this repository, from its root: hooks/node.sh, for example"
        )
    return path


def validate_zip_url(url: str) -> str:
    """Refuses what curl's configuration file would not take as one URL."""
    if not _is_url(url, "https", "http") or not re.fullmatch(r"""[!#-\[\]-~]+""", url):
        raise ValueError("give the http or https URL of the zip, without spaces, quotes and backslashes")
    return url


def validate_ssh_private_key(text: str) -> str:
    """Returns an ed25519 private key file in OpenSSH format, with a newline at its end."""
    remedy = "give an OpenSSH ed25519 private key without passphrase"
    try:
        key = load_ssh_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(remedy) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(remedy)
    # `pulumi config set` removes the newline at the end of its input.
    return text.rstrip("\n") + "\n"


validate_url_safe_password = pattern_validator(
    r"[A-Za-z0-9._~-]{16,128}",
    "give 16 to 128 letters, digits, - . _ or ~ (it becomes part of a URL)",
)
validate_password = pattern_validator(
    r"""(?:(?!["'`\\#$])[!-~]){12,128}""",
    "give 12 to 128 printable ASCII characters without spaces, quotes, \\, # or $",
)


def parse_json(value: object) -> object:
    """Returns the value of a JSON text. Returns every other value unchanged.

    Pulumi passes every setting to the program as text. A text that is not JSON is left for the field's type to refuse.
    """
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


FromJson = BeforeValidator(parse_json)
InstanceType = Annotated[StrictStr, AfterValidator(_validate_instance_type)]
VolumeSize = Annotated[StrictInt, integer_between(8, 16384)]
"""In GiB."""
Email = Annotated[StrictStr, AfterValidator(_validate_email)]
