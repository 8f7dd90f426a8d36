"""The stack's settings: one validated model; every problem of a configuration is told at once."""

from collections.abc import Collection, Mapping

from pydantic import ConfigDict, SecretStr
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

NAMESPACE = "ant-media-cluster"

_MODEL = ConfigDict(alias_generator=to_camel, extra="forbid", validate_default=True)


@dataclass(frozen=True, config=_MODEL)
class Subnet:
    id: str
    cidr: str


@dataclass(frozen=True, config=_MODEL)
class OwnNetwork:
    cidr: str = "10.0.0.0/16"
    zones: int = 2


@dataclass(frozen=True, config=_MODEL)
class ExistingSubnets:
    subnets: tuple[Subnet, ...]


@dataclass(frozen=True, config=_MODEL)
class MediaNodeSettings:
    count: int = 2
    instance_type: str = "c5.xlarge"
    volume_size: int = 16


@dataclass(frozen=True, config=_MODEL)
class LoadBalancerSettings:
    instance_type: str = "c5.large"
    volume_size: int = 16


@dataclass(frozen=True, config=_MODEL)
class DatabaseSettings:
    instance_type: str = "t3.small"
    volume_size: int = 16


@dataclass(frozen=True, config=_MODEL)
class AcmeSettings:
    """`directory` is the directory's URL."""

    email: str
    directory: str = "production"


@dataclass(frozen=True, kw_only=True, config=_MODEL)
class Settings:
    domain: str
    admin_cidrs: tuple[str, ...]
    publisher_cidrs: tuple[str, ...] = ("0.0.0.0/0",)
    route53_zone: str | None = None
    applications: tuple[str, ...] = ("LiveApp", "WebRTCAppEE", "live")
    srt: bool = False
    media_image: str = "marketplace"
    linux_image: str = "debian-13"
    network: OwnNetwork | ExistingSubnets = OwnNetwork()
    origins: MediaNodeSettings = MediaNodeSettings()
    edges: MediaNodeSettings = MediaNodeSettings()
    load_balancer: LoadBalancerSettings = LoadBalancerSettings()
    database: DatabaseSettings = DatabaseSettings()
    acme: AcmeSettings
    database_url: SecretStr | None = None
    license_key: SecretStr | None = None
    ssh_private_key: SecretStr
    ssh_host_key_seed: SecretStr
    database_password: SecretStr
    statistics_user: str = "admin"
    statistics_password: SecretStr
    panel_email: str
    panel_password: SecretStr

    @property
    def needs_database(self) -> bool:
        """Whether a database machine is part of the cluster: not for a single node, nor where `databaseUrl` names one."""
        return self.database_url is None and self.origins.count + self.edges.count > 1


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings, one line each. Shows no secret."""


def read_settings(raw: Mapping[str, object], secret_keys: Collection[str]) -> Settings:
    """The settings, from the configuration of a stack: keys without namespace, values as text or as parsed JSON."""
    raise NotImplementedError
