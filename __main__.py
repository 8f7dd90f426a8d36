"""An Ant Media Server cluster behind HAProxy: settings, plan, components, outputs."""

import pulumi

from cluster.haproxy_config import render_haproxy_cfg
from cluster.plan import plan_cluster, plan_haproxy
from components.balancer_identity import BalancerIdentity, BalancerIdentityArgs
from components.cluster_database import ClusterDatabase, ClusterDatabaseArgs
from components.failures import explain_failures
from components.haproxy_service import HAProxyService, HAProxyServiceArgs
from components.load_balancer import HAProxyLoadBalancer, HAProxyLoadBalancerArgs
from components.media_nodes import MediaNodes, MediaNodesArgs, NodeSetup
from components.network import Network, NetworkArgs
from components.preflight import check_account
from components.program_end import end_on_interrupt
from components.recordings import Recordings, RecordingsArgs
from components.security_groups import SecurityGroups, SecurityGroupsArgs
from components.site import Site
from components.stack_settings import read_stack_settings

end_on_interrupt()
settings = read_stack_settings()
plan = plan_cluster(f"{pulumi.get_project()}-{pulumi.get_stack()}", settings)
account = check_account(plan, settings.route53_zone, settings.admin_cidrs)
haproxy_cfg = render_haproxy_cfg(plan_haproxy(settings, plan.addresses, account.memory_mib))
hooks = explain_failures()
network = Network("network", NetworkArgs(plan.name, plan.addresses, account.zones, account.vpc_id, hooks))
groups = SecurityGroups("firewall", SecurityGroupsArgs(plan.name, network.vpc_id, plan.ports))
site = Site(plan.name, network, groups, account, plan.ssh, hooks)

identity = settings.acme and BalancerIdentity(
    "load-balancer-identity",
    BalancerIdentityArgs(plan.name, account.entry.hosted_zone_id, settings.challenge_records),
)
balancer_machine = site.machine_args(plan.load_balancer, identity)
balancer = HAProxyLoadBalancer(
    "load-balancer",
    HAProxyLoadBalancerArgs(balancer_machine, plan.entry, account.entry, bool(plan.database)),
)
database = plan.database and ClusterDatabase(
    "database", ClusterDatabaseArgs(site.machine_args(plan.database), settings.database_password, balancer)
)
recordings = account.uploads and Recordings("recordings", RecordingsArgs(plan.name, account.uploads, hooks))
setup = NodeSetup(plan.node, database, balancer, account.running, recordings)
edges = MediaNodes("edges", MediaNodesArgs(site.list_args(plan.edges), setup))
origins = MediaNodes("origins", MediaNodesArgs(site.list_args(plan.origins), setup, after=edges.ready))
if database:
    database.retire_old_passwords([*origins.ready, *edges.ready])
service = HAProxyService(
    "service",
    HAProxyServiceArgs(setup, [origins, edges], haproxy_cfg, plan.certificate, identity, plan.endpoint_check),
)
groups.open_late_ports(service.configuration)

for name, value in {**plan.outputs, **account.outputs}.items():
    pulumi.export(name, value)
pulumi.export("srt_urls", pulumi.Output.all(*origins.public_ips).apply(plan.list_srt_urls))
pulumi.export("load_balancer_ip", balancer.public_ip)
pulumi.export("nodes", [machine.as_output() for machine in origins.machines + edges.machines])
pulumi.export("haproxy_cfg", service.haproxy_cfg)
