"""The stack's settings: one validated model.

What a person writes is camelCase JSON (Pulumi's configuration); what the program gets are frozen dataclasses.
"""

from collections.abc import Mapping
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
from cluster.settings import certificate_checks as checks
from cluster.settings import rules
from cluster.settings.certificate import AcmeSettings, TlsSettings, clock
from cluster.settings.network import ExistingSubnets, Network, OwnNetwork
from cluster.settings.rules import (
    MODEL,
    PASSWORD,
    URL_SAFE_PASSWORD,
    Email,
    FromJson,
    InstanceType,
    Problem,
    VolumeSize,
    refuse,
)
from cluster.settings.stack_checks import HOW_TO_NAME_OWNER, tag_key

NAMESPACE = "ant-media-cluster"

# Settings that nobody can guess, and how to set each.
SET_BY_HAND: Mapping[str, str] = {
    "domain": f"pulumi config set {NAMESPACE}:domain live.your-domain.org",
    "adminCidrs": (
        f"pulumi config set --path '{NAMESPACE}:adminCidrs[0]' \"$(curl -s https://checkip.amazonaws.com)/32\""
    ),
    "acme.email": f"pulumi config set --path {NAMESPACE}:acme.email you@your-domain.org",
    tag_key("owner"): HOW_TO_NAME_OWNER,
}
# What takes the place of acme.email, in their files as a CA or its client leaves them.
CERTIFICATE_SET_BY_HAND: Mapping[str, str] = {
    "tls.certificate": f"pulumi config set --path {NAMESPACE}:tls.certificate < fullchain.pem",
    "tls.privateKey": f"pulumi config set --secret --path {NAMESPACE}:tls.privateKey < privkey.pem",
}


@dataclass(frozen=True, config=MODEL)
class MediaNodeSettings:
    count: StrictInt = 2
    instance_type: InstanceType = "c5.xlarge"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=MODEL)
class OriginSettings(MediaNodeSettings):
    count: Annotated[StrictInt, rules.whole(1, 100)] = 2


@dataclass(frozen=True, config=MODEL)
class EdgeSettings(MediaNodeSettings):
    count: Annotated[StrictInt, rules.whole(0, 1000)] = 2


@dataclass(frozen=True, config=MODEL)
class LoadBalancerSettings:
    instance_type: InstanceType = "c5.large"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, config=MODEL)
class DatabaseSettings:
    instance_type: InstanceType = "t3.small"
    volume_size: VolumeSize = 16


@dataclass(frozen=True, kw_only=True, config=MODEL)
class Settings:
    # A validator sees the fields above its own: what depends on others comes after them.
    domain: Annotated[StrictStr, AfterValidator(rules.host_name)]
    admin_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.admin_network)], ...],
        FromJson,
        AfterValidator(rules.not_empty),
        # Each network is a rule for each of its ports, and AWS allows a security group 60 rules.
        rules.at_most(15),
    ]
    publisher_cidrs: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.client_network)], ...],
        FromJson,
        AfterValidator(rules.not_empty),
        rules.at_most(10),
    ] = ("0.0.0.0/0",)
    route53_zone: Annotated[StrictStr, AfterValidator(rules.zone_name)] | None = None
    applications: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(rules.application)], ...],
        FromJson,
        AfterValidator(rules.not_empty),
    ] = ("LiveApp", "WebRTCAppEE", "live")
    srt: Annotated[StrictBool, FromJson] = False
    protect: Annotated[StrictBool, FromJson] = False
    linux_image: Annotated[StrictStr, rules.image("debian-13")] = "debian-13"
    origins: Annotated[OriginSettings, FromJson] = OriginSettings()
    edges: Annotated[EdgeSettings, FromJson] = EdgeSettings()
    network: Network = OwnNetwork()
    load_balancer: Annotated[LoadBalancerSettings, FromJson] = LoadBalancerSettings()
    database: Annotated[DatabaseSettings, FromJson] = DatabaseSettings()
    # Exactly one of the two, which `read_settings` sees to.
    acme: Annotated[AcmeSettings, FromJson] | None = None
    tls: Annotated[TlsSettings, FromJson] | None = None
    hsts_max_age: Annotated[StrictInt, FromJson, rules.whole(0, 63_072_000)] = 0
    database_url: Annotated[SecretStr, rules.secret(rules.database_url)] | None = None
    license_key: (
        Annotated[
            SecretStr, rules.secret(rules.full_match(r"[!-~]+", "give the licence key alone, without spaces"))
        ]
        | None
    ) = None
    media_image: Annotated[StrictStr, rules.image("marketplace", "ubuntu")] = "marketplace"
    ssh_private_key: Annotated[SecretStr, rules.secret(rules.ssh_private_key)]
    ssh_host_key_seed: Annotated[
        SecretStr, rules.secret(rules.full_match(r"[0-9a-fA-F]{64}", "give 64 hexadecimal digits"))
    ]
    database_password: Annotated[SecretStr, rules.secret(URL_SAFE_PASSWORD)]
    statistics_user: Annotated[
        StrictStr, AfterValidator(rules.full_match(r"[A-Za-z0-9._-]{1,32}", "give letters, digits, . _ or -"))
    ] = "admin"
    statistics_password: Annotated[SecretStr, rules.secret(PASSWORD)]
    panel_email: Email = ""  # admin@<domain>
    panel_password: Annotated[SecretStr, rules.secret(PASSWORD)]

    @property
    def needs_database(self) -> bool:
        """Whether a database machine is part of the cluster: one single node needs none, and `databaseUrl` names another."""
        return self.database_url is None and self.origins.count + self.edges.count > 1

    @property
    def certificate(self) -> AcmeSettings | TlsSettings:
        """Where the certificate comes from."""
        certificate = self.acme or self.tls
        assert certificate, "read_settings refuses settings without either"
        return certificate

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """What the ACME server is asked for: the domain and the further names.

        A name that one of the wildcards covers is left out: Let's Encrypt refuses it as redundant.
        """
        further = self.acme.names if self.acme else ()
        wildcards = [name for name in further if name.startswith("*.")]
        return tuple(
            name
            for name in (self.domain, *further)
            if not any(name != wildcard and checks.covers(wildcard, name) for wildcard in wildcards)
        )

    @property
    def names_in_zone(self) -> tuple[str, ...]:
        """The names that get an A record; the record of a wildcard would also catch what is not the cluster's."""
        if self.route53_zone is None:
            return ()
        names = (self.domain, *(self.acme.names if self.acme else ()))
        return tuple(
            name for name in names if rules.in_zone(name, self.route53_zone) and not name.startswith("*.")
        )

    @property
    def challenge_records(self) -> tuple[str, ...]:
        """The TXT records that dns-01 writes, none with another challenge."""
        if self.acme is None or self.acme.challenge != "dns-01":
            return ()
        return tuple(
            sorted({f"_acme-challenge.{name.removeprefix('*.')}" for name in self.certificate_names})
        )

    @property
    def instance_types(self) -> dict[str, str]:
        """The instance type of every kind of machine that is part of the cluster, by the setting that names it."""
        kinds = {
            "loadBalancer": self.load_balancer.instance_type,
            "origins": self.origins.instance_type,
            "edges": self.edges.instance_type if self.edges.count else None,
            "database": self.database.instance_type if self.needs_database else None,
        }
        return {f"{kind}.instanceType": name for kind, name in kinds.items() if name}

    @field_validator("route53_zone")
    @classmethod
    def _zone_holds_domain(cls, zone: str | None, info: ValidationInfo) -> str | None:
        domain: str | None = info.data.get("domain")
        if zone and domain and not rules.in_zone(domain, zone):
            raise ValueError(f"{domain} is not in this zone: give the zone that holds it")
        return zone

    @field_validator("acme")
    @classmethod
    def _acme_names_fit(cls, acme: AcmeSettings | None, info: ValidationInfo) -> AcmeSettings | None:
        if acme is None or "domain" not in info.data or "route53_zone" not in info.data:
            return acme
        domain: str = info.data["domain"]
        zone: str | None = info.data["route53_zone"]
        problems = [
            Problem(("names", place), name, "this is the domain, which is certified anyway: leave it out")
            for place, name in enumerate(acme.names)
            if name == domain
        ]
        if acme.challenge == "dns-01" and zone is None:
            problems.append(
                Problem(
                    ("challenge",),
                    acme.challenge,
                    "it is answered in Route 53: "
                    f"pulumi config set {NAMESPACE}:route53Zone ZONE, or keep http-01",
                )
            )
        elif acme.challenge == "dns-01" and zone:
            problems += [
                Problem(("names", place), name, f"dns-01 can be answered for names in the zone {zone} only")
                for place, name in enumerate(acme.names)
                if not rules.in_zone(name.removeprefix("*."), zone)
            ]
        refuse(problems)
        return acme

    @field_validator("tls")
    @classmethod
    def _certificate_will_do(cls, tls: TlsSettings | None, info: ValidationInfo) -> TlsSettings | None:
        if tls is not None:
            refuse(tls.problems(info.data.get("domain"), clock(info)))
        return tls

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
        origins: OriginSettings | None = info.data.get("origins")
        edges: EdgeSettings | None = info.data.get("edges")
        if origins is not None and edges is not None:
            plan_addresses(network, origins.count, edges.count)
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
