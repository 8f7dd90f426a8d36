"""An Ant Media Server cluster behind HAProxy: settings -> network -> load balancer -> nodes -> outputs."""

import pulumi

from components.address_plan import Machine, plan
from components.cluster_database import ClusterDatabase, ClusterDatabaseArgs, valkey_url
from components.haproxy_config import HAProxyConfig, Server, render
from components.images import Image, find_image
from components.load_balancer import HAProxyLoadBalancer, HAProxyLoadBalancerArgs, memory_mib
from components.machine import MachineArgs, SshAccess
from components.media_nodes import MediaNodes, MediaNodesArgs
from components.network import Network, NetworkArgs
from components.port_table import SecurityGroup, egress_rules, rules
from components.security_groups import SecurityGroups, SecurityGroupsArgs
from components.settings import DatabaseSettings, LoadBalancerSettings, MediaNodeSettings
from components.stack_settings import stack_settings
from components.verification import Verification, VerificationArgs

settings = stack_settings()
cluster = f"{pulumi.get_project()}-{pulumi.get_stack()}"

# Every address is known before anything exists, and with them the whole haproxy.cfg.
addresses = plan(settings.network, settings.origins.count, settings.edges.count)
haproxy_cfg = render(
    HAProxyConfig(
        domain=settings.domain,
        origins=tuple(Server(node.name, node.address) for node in addresses.origins),
        edges=tuple(Server(node.name, node.address) for node in addresses.edges),
        applications=settings.applications,
        memory_mib=memory_mib(settings.load_balancer.instance_type),
    )
)

network = Network("network", NetworkArgs(cluster=cluster, plan=addresses))
groups = SecurityGroups(
    "firewall",
    SecurityGroupsArgs(
        cluster=cluster,
        vpc_id=network.vpc_id,
        rules=rules(settings.srt, settings.needs_database),
        egress_rules=egress_rules(settings.needs_database),
        admin_cidrs=settings.admin_cidrs,
        publisher_cidrs=settings.publisher_cidrs,
    ),
)

access = SshAccess(
    private_key=settings.ssh_private_key.get_secret_value(),
    host_key_seed=settings.ssh_host_key_seed.get_secret_value(),
)
linux_image = find_image(settings.linux_image)
media_image = find_image(settings.media_image)


def machine(
    planned: Machine,
    size: LoadBalancerSettings | DatabaseSettings | MediaNodeSettings,
    image: Image,
    *member_of: SecurityGroup,
) -> MachineArgs:
    return MachineArgs(
        cluster=cluster,
        planned=planned,
        image=image,
        instance_type=size.instance_type,
        volume_size=size.volume_size,
        subnet_id=network.subnet_ids[planned.subnet],
        security_group_ids=[groups.ids[group] for group in member_of],
        access=access,
    )


balancer = HAProxyLoadBalancer(
    "load-balancer",
    HAProxyLoadBalancerArgs(
        machine=machine(addresses.load_balancer, settings.load_balancer, linux_image, SecurityGroup.LOAD_BALANCER),
        haproxy_cfg=haproxy_cfg,
        domain=settings.domain,
        route53_zone=settings.route53_zone,
        acme=settings.acme,
        statistics_user=settings.statistics_user,
        statistics_password=settings.statistics_password.get_secret_value(),
    ),
)

database_url = settings.database_url.get_secret_value() if settings.database_url else None
database_ready: list[pulumi.Resource] = []
if settings.needs_database:
    password = settings.database_password.get_secret_value()
    database_url = valkey_url(addresses.database.address, password)
    database = ClusterDatabase(
        "database",
        ClusterDatabaseArgs(
            machine=machine(addresses.database, settings.database, linux_image, SecurityGroup.DATABASE),
            password=password,
            jump_host=balancer.jump_host,
        ),
    )
    database_ready.append(database.ready)


def media_nodes(name: str, planned: tuple[Machine, ...], size: MediaNodeSettings, *member_of: SecurityGroup) -> MediaNodes:
    return MediaNodes(
        name,
        MediaNodesArgs(
            machines=[machine(node, size, media_image, *member_of) for node in planned],
            jump_host=balancer.jump_host,
            install=settings.media_image == "ubuntu",
            database_url=database_url,
            license_key=settings.license_key.get_secret_value() if settings.license_key else None,
            panel_email=settings.panel_email,
            panel_password=settings.panel_password.get_secret_value(),
            after=database_ready,
        ),
    )


origins = media_nodes("origins", addresses.origins, settings.origins, SecurityGroup.NODES, SecurityGroup.ORIGINS)
edges = media_nodes("edges", addresses.edges, settings.edges, SecurityGroup.NODES)

Verification(
    "verification",
    VerificationArgs(
        balancer=balancer,
        nodes=[origins, edges],
        haproxy_cfg=haproxy_cfg,
        domain=settings.domain,
        application=settings.applications[0],
        trusted_certificate=settings.acme.directory_is_trusted,
    ),
)

pulumi.export("rtmp_url", f"rtmp://{settings.domain}:1935/{settings.applications[0]}")
pulumi.export("publish_url", f"https://{settings.domain}/{settings.applications[0]}")
pulumi.export("play_url", f"https://{settings.domain}:5443/{settings.applications[0]}")
pulumi.export("panel_url", f"https://{settings.domain}:4444")
pulumi.export("statistics_url", f"https://{settings.domain}:6080/haproxy_stats")
pulumi.export("load_balancer_ip", balancer.public_ip)
pulumi.export(
    "nodes",
    [
        {
            "name": planned.name,
            "role": planned.role,
            "private_address": planned.address,
            "public_address": node.public_ip,
        }
        for planned, node in zip(
            addresses.origins + addresses.edges, origins.machines + edges.machines, strict=True
        )
    ],
)
pulumi.export("haproxy_cfg", balancer.haproxy_cfg)
