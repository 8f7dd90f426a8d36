"""Models the settings of a stack.

Users write camelCase JSON into the Pulumi configuration. The program gets frozen dataclasses. docs and Pulumi.yaml
describe what each setting does.
"""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    SecretStr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from cluster.address_plan import plan_addresses
from cluster.settings import app_settings, rules
from cluster.settings.certificate import AcmeSettings, TlsSettings, current_time
from cluster.settings.certificate_checks import matches_host
from cluster.settings.database_url import validate_database_url
from cluster.settings.network import ExistingSubnets, Network, OwnNetwork, Subnet, find_overlap
from cluster.settings.recordings import MANAGED_SETTINGS, RecordingsSettings
from cluster.settings.rules import (
    MODEL_CONFIG,
    Email,
    FromJson,
    InstanceType,
    Problem,
    VolumeSize,
    raise_problems,
)
from cluster.settings.server_settings import ServerSettings, flatten
from cluster.settings.server_settings import find_problems as find_server_problems
from cluster.settings.stack_checks import OWNER_TAG_COMMAND, format_tag_path

NAMESPACE = "ant-media-cluster"

# HAProxy's runtime API loads a certificate with its chain and key by one command of at most 16 KiB, and with dns-01 the
# load balancer's IAM policy lists all names in at most 10,240 characters.
_MAX_CERTIFICATE_NAMES_LENGTH = 5000

# The settings that only the user can give, each with the command that sets it.
REQUIRED_FROM_USER: Mapping[str, str] = {
    "domain": f"pulumi config set {NAMESPACE}:domain live.your-domain.org",
    "adminCidrs": (
        f"pulumi config set --path '{NAMESPACE}:adminCidrs[0]' \"$(curl -s https://checkip.amazonaws.com)/32\""
    ),
    "acme.email": f"pulumi config set --path {NAMESPACE}:acme.email you@your-domain.org",
    format_tag_path("owner"): OWNER_TAG_COMMAND,
}
# The settings that replace acme.email if the user has a certificate. The file names are certbot's.
REQUIRED_FOR_OWN_CERTIFICATE: Mapping[str, str] = {
    "tls.certificate": f"pulumi config set --path {NAMESPACE}:tls.certificate < fullchain.pem",
    "tls.privateKey": f"pulumi config set --secret --path {NAMESPACE}:tls.privateKey < privkey.pem",
}


@dataclass(frozen=True, config=MODEL_CONFIG)
class MediaNodeSettings:
    """Media nodes of one role."""

    count: StrictInt = 2
    instance_type: InstanceType = "c5.xlarge"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=MODEL_CONFIG)
class OriginSettings(MediaNodeSettings):
    """The nodes that receive published streams."""

    count: Annotated[StrictInt, rules.integer_between(1, 100)] = 2


@dataclass(frozen=True, config=MODEL_CONFIG)
class EdgeSettings(MediaNodeSettings):
    """The nodes that play streams. Without edges, the origins also play."""

    count: Annotated[StrictInt, rules.integer_between(0, 1000)] = 2


@dataclass(frozen=True, config=MODEL_CONFIG)
class LoadBalancerSettings:
    """The machine that runs HAProxy."""

    instance_type: InstanceType = "c5.large"
    volume_size: VolumeSize = 16
    elastic_ip: Annotated[StrictStr, AfterValidator(rules.validate_allocation_id)] | None = None
    """An existing address of the user's; without one the program allocates its own."""


@dataclass(frozen=True, config=MODEL_CONFIG)
class DatabaseSettings:
    """The machine that runs the cluster database."""

    instance_type: InstanceType = "t3.small"
    volume_size: VolumeSize = 16
    subnet: Subnet | None = None
    """A private subnet beside `network.subnets`."""


@dataclass(frozen=True, config=MODEL_CONFIG)
class HookSettings:
    """Scripts of the user's repository, by the kind of machine that runs them."""

    node: Annotated[StrictStr, AfterValidator(rules.validate_path)] | None = None
    load_balancer: Annotated[StrictStr, AfterValidator(rules.validate_path)] | None = None


@dataclass(frozen=True, config=MODEL_CONFIG)
class ZipSettings:
    """A zip of Ant Media Server."""

    url: Annotated[SecretStr, rules.secret_validator(rules.validate_zip_url)]
    """May contain a key."""
    sha256: Annotated[
        StrictStr,
        AfterValidator(
            rules.pattern_validator(
                r"[0-9a-f]{64}", "give what sha256sum prints for the zip: 64 digits 0-9 a-f"
            )
        ),
    ]


@dataclass(frozen=True, kw_only=True, config=MODEL_CONFIG)
class Settings:
    """The validated settings of a stack."""

    # pydantic validates fields in this order. A validator sees only the fields before its own.
    domain: Annotated[StrictStr, AfterValidator(rules.validate_host_name)]
    admin_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.validate_admin_network)], ...],
        FromJson,
        AfterValidator(rules.validate_one_or_more_unique_items),
        # AWS allows 60 rules in a security group, and each network needs a rule per port.
        rules.at_most_items(15),
    ]
    publisher_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.validate_client_network)], ...],
        FromJson,
        AfterValidator(rules.validate_one_or_more_unique_items),
        rules.at_most_items(10),
    ] = ("0.0.0.0/0",)
    monitoring_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.validate_monitoring_network)], ...],
        FromJson,
        AfterValidator(rules.validate_unique_items),
        rules.at_most_items(8),
    ] = ()
    route53_zone: Annotated[StrictStr, AfterValidator(rules.validate_zone_name)] | None = None
    applications: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.validate_application)], ...],
        FromJson,
        AfterValidator(rules.validate_one_or_more_unique_items),
        # They are on one line of haproxy.cfg, which may have 64 words.
        rules.at_most_items(50),
    ] = ("LiveApp", "WebRTCAppEE", "live")
    recordings: Annotated[RecordingsSettings, FromJson] | None = None
    application_settings: Annotated[dict[str, dict[str, object]], FromJson] = field(
        default_factory=dict[str, dict[str, object]]
    )
    server_settings: Annotated[dict[str, object], FromJson] = field(default_factory=dict[str, object])
    rtmps_port: Annotated[StrictInt, FromJson, AfterValidator(rules.validate_rtmps_port)] = 1936
    srt: Annotated[StrictBool, FromJson] = False
    protect: Annotated[StrictBool, FromJson] = False
    linux_image: Annotated[StrictStr, rules.image_name("debian-13")] = "debian-13"
    origins: Annotated[OriginSettings, FromJson] = OriginSettings()
    edges: Annotated[EdgeSettings, FromJson] = EdgeSettings()
    network: Network = OwnNetwork()
    load_balancer: Annotated[LoadBalancerSettings, FromJson] = LoadBalancerSettings()
    database: Annotated[DatabaseSettings, FromJson] = DatabaseSettings()
    hooks: Annotated[HookSettings, FromJson] = HookSettings()
    # Exactly one of acme and tls is set: `read_settings` checks this.
    acme: Annotated[AcmeSettings, FromJson] | None = None
    tls: Annotated[TlsSettings, FromJson] | None = None
    hsts_max_age: Annotated[StrictInt, FromJson, rules.integer_between(0, 63_072_000)] = 0
    drain_seconds: Annotated[StrictInt, FromJson, rules.integer_between(0, 3600)] = 60
    connections_per_client: Annotated[StrictInt, FromJson, rules.integer_between(10, 1_000_000)] | None = None
    database_url: Annotated[SecretStr, rules.secret_validator(validate_database_url)] | None = None
    license_key: (
        Annotated[
            SecretStr,
            rules.secret_validator(
                rules.pattern_validator(r"[!-~]+", "give only the licence key, without spaces")
            ),
        ]
        | None
    ) = None
    ams_zip: Annotated[ZipSettings, FromJson] | None = None
    media_image: Annotated[StrictStr, rules.image_name("marketplace", "ubuntu")] = "marketplace"
    ssh_private_key: Annotated[SecretStr, rules.secret_validator(rules.validate_ssh_private_key)]
    ssh_host_key_seed: Annotated[
        SecretStr,
        rules.secret_validator(rules.pattern_validator(r"[0-9a-fA-F]{64}", "give 64 hexadecimal digits")),
    ]
    database_password: Annotated[SecretStr, rules.secret_validator(rules.validate_url_safe_password)]
    statistics_user: Annotated[
        StrictStr,
        AfterValidator(
            rules.pattern_validator(r"[A-Za-z0-9._-]{1,32}", "give 1 to 32 letters, digits, . _ or -")
        ),
    ] = "admin"
    statistics_password: Annotated[SecretStr, rules.secret_validator(rules.validate_password)]
    panel_email: Email = ""
    """An empty text is replaced by admin@<domain>."""
    panel_password: Annotated[SecretStr, rules.secret_validator(rules.validate_password)]

    @property
    def needs_database(self) -> bool:
        """True if the program must create a database machine.

        A single node needs no database, and `databaseUrl` replaces the machine.
        """
        return self.database_url is None and self.origins.count + self.edges.count > 1

    @property
    def certificate(self) -> AcmeSettings | TlsSettings:
        """The source of the certificate."""
        certificate = self.acme or self.tls
        assert certificate, "read_settings refuses settings without either"
        return certificate

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The names to request from the ACME server: the domain, then `acme.names`.

        Names that a wildcard among them matches are omitted, because Let's Encrypt refuses them as redundant.
        """
        extra_names = self.acme.names if self.acme else ()
        wildcards = [name for name in extra_names if name.startswith("*.")]
        return tuple(
            name
            for name in (self.domain, *extra_names)
            if not any(name != wildcard and matches_host(wildcard, name) for wildcard in wildcards)
        )

    @property
    def names_in_zone(self) -> tuple[str, ...]:
        """The names that get an A record in the Route 53 zone.

        Wildcards get none, because their record would also answer for hosts outside the cluster.
        """
        if self.route53_zone is None:
            return ()
        names = (self.domain, *(self.acme.names if self.acme else ()))
        return tuple(
            name for name in names if rules.is_in_zone(name, self.route53_zone) and not name.startswith("*.")
        )

    @property
    def challenge_records(self) -> tuple[str, ...]:
        """The names of the TXT records that dns-01 writes, sorted; empty with http-01."""
        if self.acme is None or self.acme.challenge != "dns-01":
            return ()
        return tuple(
            sorted({f"_acme-challenge.{name.removeprefix('*.')}" for name in self.certificate_names})
        )

    @field_validator("route53_zone")
    @classmethod
    def _validate_zone_of_domain(cls, zone: str | None, info: ValidationInfo) -> str | None:
        domain: str | None = info.data.get("domain")
        if zone and domain and not rules.is_in_zone(domain, zone):
            raise ValueError(f"{domain} is not in this zone: give the zone that contains it")
        return zone

    @field_validator("application_settings")
    @classmethod
    def _validate_application_settings(
        cls, settings: app_settings.AppSettings, info: ValidationInfo
    ) -> app_settings.AppSettings:
        if "applications" in info.data:
            managed = MANAGED_SETTINGS if info.data.get("recordings") else frozenset[str]()
            raise_problems(app_settings.find_problems(settings, info.data["applications"], managed))
        return settings

    @field_validator("server_settings")
    @classmethod
    def _validate_server_settings(cls, settings: ServerSettings, info: ValidationInfo) -> ServerSettings:
        # Invalid applications are missing: none is then reported as not listed.
        problems = [*find_server_problems(settings, info.data.get("applications"))]
        name = flatten(settings).get("server.name")
        if name is not None and app_settings.replaces_addresses(info.data.get("application_settings", {})):
            problems.append(
                Problem(
                    ("server", "name"),
                    name,
                    "applicationSettings has replaceCandidateAddrWithServerAddr, for which the program sets server.name to "
                    "the public address of each node: leave it out",
                )
            )
        raise_problems(problems)
        return settings

    @field_validator("acme")
    @classmethod
    def _validate_acme(cls, acme: AcmeSettings | None, info: ValidationInfo) -> AcmeSettings | None:
        if acme is None or "domain" not in info.data or "route53_zone" not in info.data:
            return acme
        domain: str = info.data["domain"]
        zone: str | None = info.data["route53_zone"]
        problems = [
            Problem(("names", index), name, "the certificate always includes the domain: leave it out")
            for index, name in enumerate(acme.names)
            if name == domain
        ]
        length = sum(map(len, (domain, *acme.names)))
        if length > _MAX_CERTIFICATE_NAMES_LENGTH:
            problems.append(
                Problem(
                    ("names",),
                    acme.names,
                    f"the domain and these names have {length} characters, but a certificate can have "
                    f"{_MAX_CERTIFICATE_NAMES_LENGTH}: give fewer or shorter names",
                )
            )
        if acme.challenge == "dns-01" and zone is None:
            problems.append(
                Problem(
                    ("challenge",),
                    acme.challenge,
                    f"dns-01 needs a Route 53 zone: pulumi config set {NAMESPACE}:route53Zone ZONE, or use http-01",
                )
            )
        elif acme.challenge == "dns-01" and zone:
            problems += [
                Problem(
                    ("names", index), name, f"dns-01 works only for names in the zone {zone}: leave it out"
                )
                for index, name in enumerate(acme.names)
                if not rules.is_in_zone(name.removeprefix("*."), zone)
            ]
            checked = [(("challenge",), acme.challenge, domain)]
            checked += [(("names", index), name, name) for index, name in enumerate(acme.names)]
            problems += [
                Problem(
                    path,
                    value,
                    f"the name of the challenge record {record} has more than 253 characters: "
                    "give a shorter name, or use http-01",
                )
                for path, value, name in checked
                if len(record := f"_acme-challenge.{name.removeprefix('*.')}") > 253
            ]
        raise_problems(problems)
        return acme

    @field_validator("tls")
    @classmethod
    def _validate_tls(cls, tls: TlsSettings | None, info: ValidationInfo) -> TlsSettings | None:
        if tls is not None:
            raise_problems(tls.find_problems(info.data.get("domain"), current_time(info)))
        return tls

    @field_validator("panel_email", mode="before")
    @classmethod
    def _default_panel_email(cls, email: object, info: ValidationInfo) -> object:
        # If the domain is invalid, a valid host name avoids a second error about the email address.
        return email or f"admin@{info.data.get('domain', 'domain.refused')}"

    @field_validator("network")
    @classmethod
    def _validate_network_capacity(
        cls, network: OwnNetwork | ExistingSubnets, info: ValidationInfo
    ) -> OwnNetwork | ExistingSubnets:
        origins: OriginSettings | None = info.data.get("origins")
        edges: EdgeSettings | None = info.data.get("edges")
        if origins is not None and edges is not None:
            plan_addresses(network, origins.count, edges.count)
        return network

    @field_validator("database")
    @classmethod
    def _validate_database_subnet(cls, database: DatabaseSettings, info: ValidationInfo) -> DatabaseSettings:
        network: OwnNetwork | ExistingSubnets | None = info.data.get("network")
        if database.subnet is None or network is None:
            return database
        if isinstance(network, OwnNetwork):
            message = "the program creates public subnets only: give network.subnets of a VPC that has this private one too"
        else:
            message = find_overlap([*network.subnets, database.subnet])
        if message:
            raise_problems([Problem(("subnet",), asdict(database.subnet), message)])
        return database

    @field_validator("media_image")
    @classmethod
    def _validate_source(cls, image: str, info: ValidationInfo) -> str:
        if image == "marketplace" and info.data.get("ams_zip"):
            raise ValueError(
                "AWS bills this image for the server that it contains, so amsZip needs another one: "
                "give ubuntu or the id of an image (ami-…)"
            )
        needs_license = image == "ubuntu" and info.data.get("ams_zip", "invalid") is None
        if needs_license and info.data.get("license_key", "invalid") is None:
            raise ValueError(
                "Ant Media's installer needs a licence key: "
                f"pulumi config set --secret {NAMESPACE}:licenseKey, or give amsZip, marketplace or ami-…"
            )
        return image


SECRETS: tuple[str, ...] = tuple(
    to_camel(name)
    for name, hint in get_type_hints(Settings).items()
    if hint is SecretStr or SecretStr in get_args(hint)
)
_OPTIONAL_SECRETS = ("databaseUrl", "licenseKey")
# The secrets that `make stack` generates.
GENERATED_SECRETS = tuple(key for key in SECRETS if key not in _OPTIONAL_SECRETS)
