"""The stack's settings: one validated model; every problem of a configuration is told at once.

What a person writes is camelCase JSON (Pulumi's configuration); what the program gets are frozen
dataclasses. A validator's ValueError says what would do; `_describe` puts the key and the value before it.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from itertools import combinations
from typing import Annotated, Any, cast, get_args, get_type_hints
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    SecretStr,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

NAMESPACE = "ant-media-cluster"

# Settings that nobody can guess, and how to set each.
SET_BY_HAND: Mapping[str, str] = {
    "domain": f"pulumi config set {NAMESPACE}:domain live.your-domain.org",
    "adminCidrs": (
        f"pulumi config set --path '{NAMESPACE}:adminCidrs[0]' \"$(curl -s https://checkip.amazonaws.com)/32\""
    ),
    "acme.email": f"pulumi config set --path {NAMESPACE}:acme.email you@your-domain.org",
}

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
_SUBNET_ID = re.compile(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})")
_EMAIL = re.compile(r"[A-Za-z0-9.!#%&*+/=?^_{|}~-]+@(?P<host>[^@\s]+)")


def _full_match(pattern: str, hint: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(hint)
        return text

    return check


def _whole(least: int, most: int) -> AfterValidator:
    def check(number: int) -> int:
        if not least <= number <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return number

    return AfterValidator(check)


def _is_example(name: str) -> bool:
    return any(name == example or name.endswith(f".{example}") for example in _EXAMPLE_DOMAINS)


def _host_name(text: str) -> str:
    name = text.lower()
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(
            "give a full host name such as live.your-domain.org, without scheme, port, path or wildcard"
        )
    if _is_example(name):
        raise ValueError("this name stands for yours in examples: give a name that you own")
    return name


def _zone_name(text: str) -> str:
    # Route 53 itself shows zone names with a dot at the end.
    return _host_name(text.removesuffix("."))


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


def _client_network(text: str) -> str:
    if any(_network(text).subnet_of(example) for example in _EXAMPLE_NETWORKS):
        raise ValueError("these addresses stand for yours in examples: give your own")
    return str(_network(text))


def _admin_network(text: str) -> str:
    if _network(text).prefixlen < 8:
        raise ValueError(
            "SSH, the web panel and the statistics are never opened that wide: give your own addresses, /8 or longer"
        )
    return _client_network(text)


def _private_network(shortest: int, longest: int) -> AfterValidator:
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


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("give at least one")
    if len(set(items)) < len(items):
        raise ValueError("give each only once")
    return items


def _application(name: str) -> str:
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


def _image(*names: str) -> AfterValidator:
    def check(text: str) -> str:
        if text not in names and not _IMAGE_ID.fullmatch(text):
            raise ValueError(f"give {', '.join(names)} or the id of an image (ami-…)")
        return text

    return AfterValidator(check)


def _email(text: str) -> str:
    match = _EMAIL.fullmatch(text)
    if not match:
        raise ValueError("give an e-mail address")
    try:
        _host_name(match["host"])
    except ValueError:
        raise ValueError("give an e-mail address in a domain of yours") from None
    return text


def _acme_directory(text: str) -> str:
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


def _secret(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda secret: SecretStr(check(secret.get_secret_value())))


def _database_url(url: str) -> str:
    if not _has_host(url, "mongodb", "mongodb+srv", "redis", "rediss"):
        raise ValueError("give a URL with a host: mongodb://…, mongodb+srv://…, redis://… or rediss://…")
    if not re.fullmatch(r"[!#%&()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+", url):
        raise ValueError("percent-encode spaces, quotes, $ and every other special character of the URL")
    return url


def _ssh_private_key(text: str) -> str:
    hint = "give an OpenSSH ed25519 private key without passphrase"
    try:
        key = load_ssh_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(hint)
    # `pulumi config set` cuts the newline that the last line of a key file needs.
    return text.rstrip("\n") + "\n"


_URL_SAFE_PASSWORD = _full_match(
    r"[A-Za-z0-9._~-]{16,128}",
    "give 16 to 128 letters, digits, - . _ or ~ (it becomes part of a URL)",
)
_PASSWORD = _full_match(
    r"""(?:(?!["'`\\#$])[!-~]){12,128}""",
    "give 12 to 128 printable ASCII characters without spaces, quotes, \\, # or $",
)


def _from_json(value: object) -> object:
    """Pulumi hands every value over as text; what is no JSON stays text, for the type's own error to show."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


FromJson = BeforeValidator(_from_json)
InstanceType = Annotated[StrictStr, AfterValidator(_instance_type)]
VolumeSize = Annotated[StrictInt, _whole(8, 16384)]
Email = Annotated[StrictStr, AfterValidator(_email)]

_MODEL = ConfigDict(alias_generator=to_camel, extra="forbid", validate_default=True)


@dataclass(frozen=True, config=_MODEL)
class Subnet:
    id: Annotated[
        StrictStr, AfterValidator(_full_match(_SUBNET_ID.pattern, "give the id of a subnet (subnet-…)"))
    ]
    cidr: Annotated[StrictStr, _private_network(16, 28)]


def _distinct_subnets(subnets: tuple[Subnet, ...]) -> tuple[Subnet, ...]:
    if not subnets:
        raise ValueError("give at least one")
    for one, other in combinations(subnets, 2):
        if one.id == other.id:
            raise ValueError(f"{one.id} is there twice: give each subnet once")
        if IPv4Network(one.cidr).overlaps(IPv4Network(other.cidr)):
            raise ValueError(
                f"{one.id} ({one.cidr}) and {other.id} ({other.cidr}) overlap: give the CIDRs that AWS shows for them"
            )
    return subnets


@dataclass(frozen=True, config=_MODEL)
class OwnNetwork:
    """A VPC of the cluster's own."""

    # AWS takes subnets of /16 to /28, and each is an eighth of the VPC.
    cidr: Annotated[StrictStr, _private_network(16, 25)] = "10.0.0.0/16"
    # No region has more.
    zones: Annotated[StrictInt, _whole(1, 6)] = 2


@dataclass(frozen=True, config=_MODEL)
class ExistingSubnets:
    """Public subnets of one VPC that the user has already."""

    subnets: Annotated[tuple[Subnet, ...], AfterValidator(_distinct_subnets)]


def _has_any(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and any(key in value for key in keys)


def _own_or_existing(value: object) -> object:
    parsed = _from_json(value)
    if _has_any(parsed, "subnets") and _has_any(parsed, "cidr", "zones"):
        raise ValueError(
            "keep cidr and zones for a VPC of the cluster's own, or subnets for existing ones, not both"
        )
    return parsed


def _network_kind(value: object) -> str:
    existing = isinstance(value, ExistingSubnets) or _has_any(value, "subnets")
    return "<existing>" if existing else "<own>"


Network = Annotated[
    Annotated[OwnNetwork, Tag("<own>")] | Annotated[ExistingSubnets, Tag("<existing>")],
    Discriminator(_network_kind),
    BeforeValidator(_own_or_existing),
]


@dataclass(frozen=True, config=_MODEL)
class MediaNodeSettings:
    count: StrictInt = 2
    instance_type: InstanceType = "c5.xlarge"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=_MODEL)
class OriginSettings(MediaNodeSettings):
    count: Annotated[StrictInt, _whole(1, 100)] = 2


@dataclass(frozen=True, config=_MODEL)
class EdgeSettings(MediaNodeSettings):
    count: Annotated[StrictInt, _whole(0, 1000)] = 2


@dataclass(frozen=True, config=_MODEL)
class LoadBalancerSettings:
    instance_type: InstanceType = "c5.large"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=_MODEL)
class DatabaseSettings:
    instance_type: InstanceType = "t3.small"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=_MODEL)
class AcmeSettings:
    """`directory` is the directory's URL."""

    email: Email
    directory: Annotated[StrictStr, AfterValidator(_acme_directory)] = "production"


@dataclass(frozen=True, kw_only=True, config=_MODEL)
class Settings:
    # A validator sees the fields above its own: what depends on others comes after them.
    domain: Annotated[StrictStr, AfterValidator(_host_name)]
    admin_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(_admin_network)], ...], FromJson, AfterValidator(_not_empty)
    ]
    publisher_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(_client_network)], ...],
        FromJson,
        AfterValidator(_not_empty),
    ] = ("0.0.0.0/0",)
    route53_zone: Annotated[StrictStr, AfterValidator(_zone_name)] | None = None
    applications: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(_application)], ...], FromJson, AfterValidator(_not_empty)
    ] = ("LiveApp", "WebRTCAppEE", "live")
    srt: Annotated[StrictBool, FromJson] = False
    linux_image: Annotated[StrictStr, _image("debian-13")] = "debian-13"
    origins: Annotated[OriginSettings, FromJson] = OriginSettings()
    edges: Annotated[EdgeSettings, FromJson] = EdgeSettings()
    network: Network = OwnNetwork()
    load_balancer: Annotated[LoadBalancerSettings, FromJson] = LoadBalancerSettings()
    database: Annotated[DatabaseSettings, FromJson] = DatabaseSettings()
    acme: Annotated[AcmeSettings, FromJson]
    database_url: Annotated[SecretStr, _secret(_database_url)] | None = None
    license_key: (
        Annotated[SecretStr, _secret(_full_match(r"[!-~]+", "give the licence key alone, without spaces"))]
        | None
    ) = None
    media_image: Annotated[StrictStr, _image("marketplace", "ubuntu")] = "marketplace"
    ssh_private_key: Annotated[SecretStr, _secret(_ssh_private_key)]
    ssh_host_key_seed: Annotated[
        SecretStr, _secret(_full_match(r"[0-9a-fA-F]{64}", "give 64 hexadecimal digits"))
    ]
    database_password: Annotated[SecretStr, _secret(_URL_SAFE_PASSWORD)]
    statistics_user: Annotated[
        StrictStr, AfterValidator(_full_match(r"[A-Za-z0-9._-]{1,32}", "give letters, digits, . _ or -"))
    ] = "admin"
    statistics_password: Annotated[SecretStr, _secret(_PASSWORD)]
    panel_email: Email = ""  # admin@<domain>
    panel_password: Annotated[SecretStr, _secret(_PASSWORD)]

    @property
    def needs_database(self) -> bool:
        """Whether a database machine is part of the cluster: one single node needs none, and `databaseUrl` names another."""
        return self.database_url is None and self.origins.count + self.edges.count > 1

    @field_validator("route53_zone")
    @classmethod
    def _zone_holds_domain(cls, zone: str | None, info: ValidationInfo) -> str | None:
        domain: str | None = info.data.get("domain")
        if zone and domain and domain != zone and not domain.endswith(f".{zone}"):
            raise ValueError(f"{domain} is not in this zone: give the zone that holds it")
        return zone

    @field_validator("panel_email", mode="before")
    @classmethod
    def _panel_email_in_domain(cls, email: object, info: ValidationInfo) -> object:
        # Where the domain itself is refused, any address will do to leave that the only complaint.
        return email or f"admin@{info.data.get('domain', 'domain.refused')}"

    @field_validator("network")
    @classmethod
    def _network_holds_nodes(
        cls, network: OwnNetwork | ExistingSubnets, info: ValidationInfo
    ) -> OwnNetwork | ExistingSubnets:
        # Here, because the plan is made from settings.
        from components.address_plan import plan

        origins: OriginSettings | None = info.data.get("origins")
        edges: EdgeSettings | None = info.data.get("edges")
        if origins is not None and edges is not None:
            plan(network, origins.count, edges.count)
        return network

    @field_validator("media_image")
    @classmethod
    def _installer_has_license(cls, image: str, info: ValidationInfo) -> str:
        if image == "ubuntu" and info.data.get("license_key", "unusable") is None:
            raise ValueError(
                "Ant Media's installer needs a licence: "
                f"pulumi config set --secret {NAMESPACE}:licenseKey, or give marketplace or ami-…"
            )
        return image


# The secrets, and which of them `scripts/new-stack` makes.
SECRETS: tuple[str, ...] = tuple(
    to_camel(name)
    for name, hint in get_type_hints(Settings).items()
    if hint is SecretStr or SecretStr in get_args(hint)
)
OPTIONAL_SECRETS = ("databaseUrl", "licenseKey")
GENERATED_SECRETS = tuple(key for key in SECRETS if key not in OPTIONAL_SECRETS)


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings, one line each. Shows no secret."""


def read_settings(raw: Mapping[str, object], secret_keys: Collection[str]) -> Settings:
    """The settings, from a stack's configuration: keys without namespace, values as text or as parsed JSON.

    An empty text is a setting that was not given: that is how Pulumi.yaml says "no default".
    """
    # Without any `acme`, what is missing is still `acme.email`.
    given: dict[str, object] = {"acme": "{}", **{key: value for key, value in raw.items() if value != ""}}
    problems = [
        f"{NAMESPACE}:{key} is in plain text: encrypt it with pulumi config set --secret {NAMESPACE}:{key}, "
        "and if anybody else may have read it, with a new value"
        for key in SECRETS
        if key in given and key not in secret_keys
    ]
    try:
        settings = TypeAdapter(Settings).validate_python(given)
    except ValidationError as error:
        hidden = {*SECRETS, *secret_keys}
        problems += [_describe(detail, hidden) for detail in error.errors()]
    else:
        if not problems:
            return settings
    raise SettingsError("\n".join(sorted(problems)))


def _describe(detail: ErrorDetails, hidden: Collection[str]) -> str:
    """One line of a `SettingsError`: the key as it is written, the value unless hidden, and what would do."""
    path = [part for part in detail["loc"] if not str(part).startswith("<")]
    dotted = _dotted(path)
    key = f"{NAMESPACE}:{dotted}"
    match detail["type"]:
        case "missing":
            return f"{key} is not set: {_how_to_set(dotted)}"
        case "unexpected_keyword_argument":
            known = _known_keys(path[:-1])
            similar = difflib.get_close_matches(str(path[-1]), known, n=1)
            advice = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(known)}"
            return f"{key} is not a setting: {advice}"
        case "value_error":
            advice = str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"]
        case kind:
            advice = _TYPE_ADVICE.get(kind, detail["msg"]).format(key=key)
    # What a secret was is not shown, nor anything that lies in an encrypted object.
    value = "will not do" if str(path[0]) in hidden else f"is {_shown(detail['input'])}"
    return f"{key} {value}: {advice}"


_TYPE_ADVICE = {
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "string_type": "give a text",
    "tuple_type": "give a list, each element by pulumi config set --path '{key}[0]' VALUE",
    "dataclass_type": "give an object, each of its keys by pulumi config set --path {key}.NAME VALUE",
}


def _how_to_set(key: str) -> str:
    if key in SET_BY_HAND:
        return SET_BY_HAND[key]
    if key in GENERATED_SECRETS:
        return "make stack STACK=NAME generates it"
    return "this key is needed"


def _dotted(path: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    if isinstance(value, str) and value.startswith(("{", "[")):
        value = _from_json(value)
    text = json.dumps(value, ensure_ascii=False, default=dataclasses.asdict)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _known_keys(path: Iterable[str | int]) -> list[str]:
    """The keys that the object at `path` may have."""
    models: list[type] = [Settings]
    for part in path:
        if isinstance(part, str):
            models = [
                inner
                for model in models
                for name, hint in get_type_hints(model).items()
                if to_camel(name) == part
                for inner in _models_in(hint)
            ]
    return [to_camel(name) for model in models for name in get_type_hints(model)]


def _models_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield cast(type, hint)
    for argument in get_args(hint):
        yield from _models_in(argument)
