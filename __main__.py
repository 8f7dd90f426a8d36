"""An Ant Media Server cluster behind HAProxy, top down: settings, network, balancer, database, nodes, service."""

import pulumi

from cluster.address_plan import plan
from cluster.haproxy_config import HAProxyConfig, Server, render
from cluster.port_table import SecurityGroup, egress_rules, rules
from cluster.settings.certificate import AcmeSettings
from components.balancer_identity import BalancerIdentity, BalancerIdentityArgs
from components.cluster_database import ClusterDatabase, ClusterDatabaseArgs
from components.dns_zone import find_zone
from components.haproxy_service import AcmeCertificate, HAProxyService, HAProxyServiceArgs
from components.images import find_image
from components.instance_types import look_up
from components.load_balancer import HAProxyLoadBalancer, HAProxyLoadBalancerArgs
from components.machine import SshAccess
from components.media_nodes import MediaNodes, MediaNodesArgs, Membership
from components.network import Network, NetworkArgs
from components.security_groups import SecurityGroups, SecurityGroupsArgs
from components.site import Site
from components.stack_settings import stack_settings

settings = stack_settings()
cluster = f"{pulumi.get_project()}-{pulumi.get_stack()}"

types = look_up(settings.instance_types)

# Every private address is known before anything exists, and with them the whole haproxy.cfg.
addresses = plan(settings.network, settings.origins.count, settings.edges.count)
haproxy_cfg = render(
    HAProxyConfig(
        domain=settings.domain,
        origins=tuple(Server(node.name, node.address) for node in addresses.origins),
        edges=tuple(Server(node.name, node.address) for node in addresses.edges),
        applications=settings.applications,
        memory_mib=types["loadBalancer.instanceType"].memory_mib,
        hsts_max_age=settings.hsts_max_age,
    )
)

network = Network("network", NetworkArgs(cluster, addresses))
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
site = Site(cluster, network, groups, SshAccess(settings.ssh_private_key, settings.ssh_host_key_seed))
linux, media = find_image(settings.linux_image), find_image(settings.media_image)

zone_id = find_zone(settings.route53_zone) if settings.route53_zone else None
# To get certificates the balancer acts for itself at AWS; with one of the user's own it need not.
certificate, profile = settings.certificate, None
if isinstance(certificate, AcmeSettings):
    identity = BalancerIdentity(
        "load-balancer-identity", BalancerIdentityArgs(cluster, zone_id, settings.challenge_records)
    )
    certificate = AcmeCertificate(certificate, settings.certificate_names, identity)
    profile = identity.instance_profile

balancer = HAProxyLoadBalancer(
    "load-balancer",
    HAProxyLoadBalancerArgs(
        machine=site.machine(
            addresses.load_balancer,
            settings.load_balancer,
            linux,
            SecurityGroup.LOAD_BALANCER,
            instance_profile=profile,
        ),
        domain=settings.domain,
        zone_id=zone_id,
        names_in_zone=settings.names_in_zone,
        statistics_user=settings.statistics_user,
        statistics_password=settings.statistics_password,
        protect_address=settings.protect,
    ),
)

database = (
    ClusterDatabase(
        "database",
        ClusterDatabaseArgs(
            machine=site.machine(
                addresses.database,
                settings.database,
                linux,
                SecurityGroup.DATABASE,
                protect=settings.protect,
            ),
            password=settings.database_password,
            jump_host=balancer.jump_host,
        ),
    )
    if settings.needs_database
    else None
)

membership = Membership(
    install=settings.media_image == "ubuntu",
    database_url=database.url if database else settings.database_url,
    license_key=settings.license_key,
    panel_email=settings.panel_email,
    panel_password=settings.panel_password,
    jump_host=balancer.jump_host,
    database=database,
)
origins = MediaNodes(
    "origins",
    MediaNodesArgs(
        [
            site.machine(node, settings.origins, media, SecurityGroup.NODES, SecurityGroup.ORIGINS)
            for node in addresses.origins
        ],
        membership,
    ),
)
edges = MediaNodes(
    "edges",
    MediaNodesArgs(
        [site.machine(node, settings.edges, media, SecurityGroup.NODES) for node in addresses.edges],
        membership,
    ),
)

application = settings.applications[0]
service = HAProxyService(
    "service",
    HAProxyServiceArgs(
        balancer=balancer,
        nodes=[origins, edges],
        haproxy_cfg=haproxy_cfg,
        certificate=certificate,
        publisher_cidrs=settings.publisher_cidrs,
        application=application,
    ),
)

pulumi.export("rtmp_url", f"rtmp://{settings.domain}:1935/{application}")
pulumi.export("publish_url", f"https://{settings.domain}/{application}/")
pulumi.export("play_url", f"https://{settings.domain}:5443/{application}/")
pulumi.export("panel_url", f"https://{settings.domain}:4444/")
pulumi.export("statistics_url", f"https://{settings.domain}:6080/haproxy_stats")
pulumi.export("certificate_names", list(settings.certificate_names))
pulumi.export("load_balancer_ip", balancer.public_ip)
pulumi.export("nodes", [machine.as_output() for machine in origins.machines + edges.machines])
pulumi.export("haproxy_cfg", service.haproxy_cfg)
