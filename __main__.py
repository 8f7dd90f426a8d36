"""An Ant Media Server cluster behind HAProxy: settings, plan, components, outputs."""

import pulumi

from cluster.haproxy_config import render_haproxy_cfg
from cluster.plan import plan_cluster, plan_haproxy
from components.aws_lookups import find_images, find_instance_types, find_zone
from components.balancer_identity import BalancerIdentity, BalancerIdentityArgs
from components.cluster_database import ClusterDatabase, ClusterDatabaseArgs
from components.haproxy_service import HAProxyService, HAProxyServiceArgs
from components.load_balancer import HAProxyLoadBalancer, HAProxyLoadBalancerArgs
from components.media_nodes import MediaNodes, MediaNodesArgs, NodeSetup
from components.network import Network, NetworkArgs
from components.security_groups import SecurityGroups, SecurityGroupsArgs
from components.site import Site
from components.stack_settings import read_stack_settings

settings = read_stack_settings()
plan = plan_cluster(f"{pulumi.get_project()}-{pulumi.get_stack()}", settings)
memory_mib = find_instance_types(settings.instance_types)["loadBalancer.instanceType"].memory_mib
haproxy_cfg = render_haproxy_cfg(plan_haproxy(settings, plan.addresses, memory_mib))
zone_id = find_zone(settings.route53_zone)

network = Network("network", NetworkArgs(plan.name, plan.addresses))
groups = SecurityGroups("firewall", SecurityGroupsArgs(plan.name, network.vpc_id, plan.ports))
site = Site(plan.name, network, groups, find_images(plan.images), plan.ssh)

identity = settings.acme and BalancerIdentity(
    "load-balancer-identity", BalancerIdentityArgs(plan.name, zone_id, settings.challenge_records)
)
balancer = HAProxyLoadBalancer(
    "load-balancer",
    HAProxyLoadBalancerArgs(site.machine_args(plan.load_balancer, identity), plan.entry, zone_id),
)
database = plan.database and ClusterDatabase(
    "database",
    ClusterDatabaseArgs(site.machine_args(plan.database), settings.database_password, balancer.jump_host),
)
setup = NodeSetup(plan.node, database, balancer.jump_host)
origins = MediaNodes("origins", MediaNodesArgs([site.machine_args(node) for node in plan.origins], setup))
edges = MediaNodes("edges", MediaNodesArgs([site.machine_args(node) for node in plan.edges], setup))
service = HAProxyService(
    "service",
    HAProxyServiceArgs(
        balancer=balancer,
        nodes=[origins, edges],
        haproxy_cfg=haproxy_cfg,
        certificate=plan.certificate,
        identity=identity,
        application=settings.applications[0],
        check_rtmp="0.0.0.0/0" in settings.publisher_cidrs,
    ),
)

for name, url in plan.urls.items():
    pulumi.export(name, url)
pulumi.export("certificate_names", list(settings.certificate_names))
pulumi.export("load_balancer_ip", balancer.public_ip)
pulumi.export("nodes", [machine.as_output() for machine in origins.machines + edges.machines])
pulumi.export("haproxy_cfg", service.haproxy_cfg)
