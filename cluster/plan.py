"""The cluster that the settings describe: its machines, ports, certificate and URLs, known before any resource exists."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from cluster.address_plan import AddressPlan, MachinePlace, plan_addresses
from cluster.derived_keys import SshKeys
from cluster.haproxy_config import HAProxyConfig, Server
from cluster.port_table import PortTable, SecurityGroup, plan_ports
from cluster.settings.app_settings import SECRET_NAMES, merge_for_each, replaces_addresses
from cluster.settings.certificate import AcmeSettings, TlsSettings
from cluster.settings.model import DatabaseSettings, LoadBalancerSettings, MediaNodeSettings, Settings
from cluster.settings.recordings import RecordingsSettings
from cluster.settings.server_settings import ServerSettingsPlan, plan_server_settings


@dataclass(frozen=True)
class MachinePlan:
    """A machine to create."""

    place: MachinePlace
    """Name, role, subnet and private address."""
    image: str
    """An image as the settings name it: `debian-13` or an AMI id, for example."""
    instance_type: str
    volume_size: int
    """Root volume in GiB."""
    security_groups: tuple[SecurityGroup, ...]
    protect: bool = False
    """Whether Pulumi refuses to delete or replace it."""
    monitored: bool = False
    """Whether node exporter serves its metrics."""
    public: bool = True
    """Whether it gets a public address. Without one, it reaches the internet through a NAT gateway."""


@dataclass(frozen=True)
class EntryPlan:
    """The cluster's public entry point."""

    domain: str
    """The host name that clients use."""
    names_in_zone: tuple[str, ...]
    """Names that get an A record, if there is a hosted zone."""
    statistics_user: str
    statistics_password: SecretStr
    protect_address: bool
    """Whether Pulumi refuses to delete or replace the Elastic IP."""
    elastic_ip: str | None
    """Allocation id of the user's own Elastic IP."""
    hook: str | None
    """Path in the repository of the user's script. It runs after the set-up of the load balancer."""


@dataclass(frozen=True)
class AcmePlan:
    """A certificate that certbot orders and renews."""

    acme: AcmeSettings
    names: tuple[str, ...]
    """Subject alternative names."""


@dataclass(frozen=True)
class AppSettingsPlan:
    """Settings of Ant Media's applications. Each part is a JSON object of applications with their values by name."""

    public: str
    """Previews show them."""
    secret: SecretStr


@dataclass(frozen=True)
class NodePlan:
    """What every node is set up with."""

    source: str
    """Where Ant Media Server comes from: `installed` (it is in the image), `install` (by Ant Media's installer) or `zip:SHA256`."""
    zip_url: SecretStr | None
    license_key: SecretStr | None
    panel_email: str
    """The first administrator of the web panel."""
    panel_password: SecretStr
    database_url: SecretStr | None
    """The user's own cluster registry."""
    applications: tuple[str, ...]
    """A node is ready when these serve."""
    app_settings: AppSettingsPlan | None
    server_settings: ServerSettingsPlan
    announces_address: bool
    """True if applications announce server.name to WebRTC clients. Each node's server.name is then its public address."""
    drain_seconds: int
    """How long an update waits for a node's connections before it restarts, replaces or deletes the node."""
    hook: str | None
    """Path in the repository of the user's script. It runs after the set-up of a node."""


@dataclass(frozen=True)
class EndpointCheck:
    """What the check of the public endpoints requests after an update."""

    applications: tuple[str, ...]
    rtmp_ports: tuple[int, ...]
    """RTMP's and RTMPS's, in this order; empty unless `publisherCidrs` admits every address, so that the operator reaches them."""


@dataclass(frozen=True)
class ClusterPlan:
    """A whole cluster. Edges and the database may be missing."""

    name: str
    """`PROJECT-STACK`: all names in AWS begin with it."""
    addresses: AddressPlan
    ports: PortTable
    ssh: SshKeys
    entry: EntryPlan
    certificate: AcmePlan | TlsSettings
    node: NodePlan
    recordings: RecordingsSettings | None
    load_balancer: MachinePlan
    database: MachinePlan | None
    origins: tuple[MachinePlan, ...]
    edges: tuple[MachinePlan, ...]
    endpoint_check: EndpointCheck
    srt: bool
    """Whether the origins accept SRT."""
    outputs: Mapping[str, str | list[str]]
    """Stack outputs by name. RTMP, publish and play URLs are those of the first application."""

    def list_srt_urls(self, origins: Sequence[str]) -> list[str]:
        """Returns an SRT URL for each origin, given by its public address: HAProxy does not balance UDP. Without SRT, none."""
        # AMS takes application and stream from the stream id (Ant-Media-Server issue 6032). stream1 is an example.
        stream = f"{self.node.applications[0]}/stream1"
        return [f"srt://{origin}:4200?streamid={stream}" for origin in origins] if self.srt else []

    @property
    def machines(self) -> dict[str, tuple[MachinePlan, ...]]:
        """Machines by their setting. All machines of a setting have one size and one image.

        The account checks (quota, instance types, stopped machines) read only these.
        """
        machines = {
            "loadBalancer": (self.load_balancer,),
            "database": (self.database,) if self.database else (),
            "origins": self.origins,
            "edges": self.edges,
        }
        return {setting: planned for setting, planned in machines.items() if planned}


def plan_cluster(name: str, settings: Settings) -> ClusterPlan:
    """Plans the cluster that the settings describe.

    Raises:
        AddressPlanError: The subnets have fewer addresses than the cluster has nodes.
    """
    subnet = settings.database.subnet if settings.needs_database else None
    addresses = plan_addresses(settings.network, settings.origins.count, settings.edges.count, subnet)
    linux, media = settings.linux_image, settings.media_image

    def machine(
        place: MachinePlace,
        size: LoadBalancerSettings | DatabaseSettings | MediaNodeSettings,
        image: str,
        *groups: SecurityGroup,
        protect: bool = False,
    ) -> MachinePlan:
        monitored = bool(settings.monitoring_cidrs)
        public = addresses.subnets[place.subnet].public
        size_of = size.instance_type, size.volume_size
        return MachinePlan(place, image, *size_of, groups, protect, monitored, public)

    def origin(place: MachinePlace) -> MachinePlan:
        return machine(place, settings.origins, media, SecurityGroup.NODES, SecurityGroup.ORIGINS)

    def edge(place: MachinePlace) -> MachinePlan:
        return machine(place, settings.edges, media, SecurityGroup.NODES)

    database = machine(
        addresses.database, settings.database, linux, SecurityGroup.DATABASE, protect=settings.protect
    )
    return ClusterPlan(
        name=name,
        addresses=addresses,
        ports=plan_ports(settings),
        ssh=SshKeys(settings.ssh_private_key, settings.ssh_host_key_seed),
        entry=EntryPlan(
            settings.domain,
            settings.names_in_zone,
            settings.statistics_user,
            settings.statistics_password,
            settings.protect,
            settings.load_balancer.elastic_ip,
            settings.hooks.load_balancer,
        ),
        certificate=_plan_certificate(settings),
        node=NodePlan(
            _choose_source(settings),
            settings.ams_zip and settings.ams_zip.url,
            settings.license_key,
            settings.panel_email,
            settings.panel_password,
            settings.database_url,
            settings.applications,
            _plan_app_settings(settings),
            plan_server_settings(settings.server_settings),
            replaces_addresses(settings.application_settings),
            settings.drain_seconds,
            settings.hooks.node,
        ),
        recordings=settings.recordings,
        load_balancer=machine(
            addresses.load_balancer,
            settings.load_balancer,
            linux,
            SecurityGroup.LOAD_BALANCER,
            SecurityGroup.RTMP,
        ),
        database=database if settings.needs_database else None,
        origins=tuple(map(origin, addresses.origins)),
        edges=tuple(map(edge, addresses.edges)),
        endpoint_check=EndpointCheck(settings.applications, _list_open_rtmp_ports(settings)),
        srt=settings.srt,
        outputs=_plan_outputs(settings),
    )


def plan_haproxy(settings: Settings, addresses: AddressPlan, memory_mib: int) -> HAProxyConfig:
    """Returns what haproxy.cfg is rendered from; `memory_mib` is the load balancer's memory."""
    return HAProxyConfig(
        domain=settings.domain,
        origins=_servers(addresses.origins),
        edges=_servers(addresses.edges),
        applications=settings.applications,
        admin_cidrs=settings.admin_cidrs,
        rtmps_port=settings.rtmps_port,
        memory_mib=memory_mib,
        hsts_max_age=settings.hsts_max_age,
        database=_servers([addresses.database])[0] if settings.needs_database else None,
        monitoring=bool(settings.monitoring_cidrs),
        connections_per_client=settings.connections_per_client,
    )


def _servers(nodes: Sequence[MachinePlace]) -> tuple[Server, ...]:
    return tuple(Server(node.name, node.address) for node in nodes)


def _choose_source(settings: Settings) -> str:
    if settings.ams_zip:
        return f"zip:{settings.ams_zip.sha256}"
    return "install" if settings.media_image == "ubuntu" else "installed"


def _plan_certificate(settings: Settings) -> AcmePlan | TlsSettings:
    certificate = settings.certificate
    if isinstance(certificate, TlsSettings):
        return certificate
    return AcmePlan(certificate, settings.certificate_names)


def _plan_app_settings(settings: Settings) -> AppSettingsPlan | None:
    merged = merge_for_each(settings.application_settings, settings.applications)

    def select(secret: bool) -> str:
        selected = {
            application: {name: value for name, value in values.items() if (name in SECRET_NAMES) == secret}
            for application, values in merged.items()
        }
        return json.dumps(selected, sort_keys=True)

    return AppSettingsPlan(select(secret=False), SecretStr(select(secret=True))) if merged else None


def _list_open_rtmp_ports(settings: Settings) -> tuple[int, ...]:
    ports = (1935, settings.rtmps_port) if settings.rtmps_port else (1935,)
    return ports if "0.0.0.0/0" in settings.publisher_cidrs else ()


def _plan_outputs(settings: Settings) -> dict[str, str | list[str]]:
    domain, application = settings.domain, settings.applications[0]
    rtmps = {"rtmps_url": f"rtmps://{domain}:{settings.rtmps_port}/{application}"}
    return {
        "rtmp_url": f"rtmp://{domain}:1935/{application}",
        **(rtmps if settings.rtmps_port else {}),
        "publish_url": f"https://{domain}/{application}/",
        "play_url": f"https://{domain}:5443/{application}/",
        "panel_url": f"https://{domain}:4444/",
        "statistics_url": f"https://{domain}:6080/haproxy_stats",
        "certificate_names": list(settings.certificate_names),
    }
