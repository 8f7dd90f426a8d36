"""Finds the problems of a cluster."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from cluster.address_plan import Role
from operations.instances import Instance, start_command
from operations.status.certificate import PLACEHOLDER, Certificate
from operations.status.cluster import Cluster, MediaServer, Renewal, Server, Unreachable

PANEL_PORT = 4444
STATISTICS_PORT = 6080


def find_problems(cluster: Cluster, now: datetime) -> list[str]:
    """Returns a sentence for each problem."""
    stopped = {instance.name for instance in cluster.stopped}
    problems = [*_find_stopped_machines(cluster.stopped)]
    # Nothing else answers while the load balancer is stopped.
    if Role.LOAD_BALANCER not in stopped:
        problems += _find_closed_ports(cluster)
    statistics = cluster.ports.get(STATISTICS_PORT)
    # A closed port is reported already, and an untrusted certificate (acme.directory: staging) may be intended.
    if isinstance(statistics, Certificate) and statistics.distrust is None:
        problems += _find_unreadable_pages(cluster)
    if not isinstance(cluster.servers, Unreachable):
        problems += _find_servers_out_of_service(cluster.servers, stopped)
    problems += _find_limits(cluster.media_servers)
    problems += cluster.registry.problems
    for certificate, ports in cluster.ports_by_certificate.items():
        faults = _find_faults(certificate, cluster.names, now)
        problems += [f"The certificate on {ports} {fault}." for fault in faults]
    if isinstance(cluster.renewal, Renewal) and cluster.renewal.failed:
        problems.append(
            "The last renewal of the certificate failed; certbot's timer tries again. "
            "For the reason, run journalctl -u certbot on the load balancer, or read /var/log/letsencrypt there."
        )
    return problems


def _find_stopped_machines(stopped: Sequence[Instance]) -> Iterator[str]:
    if stopped:
        names = ", ".join(f"{instance.name} ({instance.id})" for instance in stopped)
        command = start_command(instance.id for instance in stopped)
        yield f"Stopped machines: {names}. An update needs them running. Start them: {command}"


def _find_servers_out_of_service(servers: Iterable[Server], stopped: Collection[str]) -> list[str]:
    """Returns one sentence for each node that gets no new clients: DOWN, MAINT or DRAIN, for example."""
    out = [server for server in servers if not server.state.startswith("UP") and server.name not in stopped]
    states = {server.name: server.state.split()[0] for server in out}
    # In maintenance and drain, the last check is not the reason.
    reasons = {server.name: f" ({server.check})" for server in out if server.check and server.is_down}
    return [f"{name} is {state}{reasons.get(name, '')}." for name, state in sorted(states.items())]


def _find_limits(servers: Mapping[str, MediaServer | Unreachable]) -> Iterator[str]:
    """Yields one sentence for each node that refuses publishers because its machine is busy."""
    for node, server in servers.items():
        if isinstance(server, Unreachable):
            continue
        # In the order of StatsCollector.enoughResource, which compares in the same way.
        if server.cpu_load >= server.cpu_limit:
            limit, setting = f"CPU limit: its load is {server.cpu_load} %", "server.cpu_limit"
            value = server.cpu_limit
        elif server.memory_load >= server.memory_limit:
            limit, setting = f"memory limit: it uses {server.memory_load} %", "server.memory_limit_percentage"
            value = server.memory_limit
        else:
            continue
        yield (
            f"{node} is at its {limit}, and {setting} is {value}. Ant Media Server refuses publishers there, although its "
            "health check succeeds."
        )


def _find_closed_ports(cluster: Cluster) -> Iterator[str]:
    """Yields one sentence for each port that does not answer, and one for those that AWS keeps closed to this machine."""
    problem = cluster.access_problem
    if problem:
        yield f"{problem.reason[:1].upper()}{problem.reason[1:]}"
    for port, result in cluster.ports.items():
        if isinstance(result, Unreachable) and not (problem and port in problem.ports):
            yield f"Port {port} does not answer: {result.reason}."


def _find_unreadable_pages(cluster: Cluster) -> Iterator[str]:
    """Yields one sentence for each reason, so that a wrong password is reported once."""
    pages = {"statistics": cluster.servers, "load balancer's metrics": cluster.renewal}
    unreadable = {page: result for page, result in pages.items() if isinstance(result, Unreachable)}
    for reason in dict.fromkeys(result.reason for result in unreadable.values()):
        affected = " and the ".join(page for page, result in unreadable.items() if result.reason == reason)
        yield f"The {affected} cannot be read: {reason}."


def _find_faults(certificate: Certificate, names: Sequence[str], now: datetime) -> list[str]:
    if certificate.issuer == PLACEHOLDER:
        return ["is the placeholder"]
    faults = [f"is not valid for {name}" for name in names if not certificate.covers(name)]
    left = certificate.not_after - now
    if left < timedelta():
        faults.append("has expired")
    elif left < certificate.shortest_time_left:
        faults.append(f"has {format_days(left)} left")
    if now < certificate.not_before:
        faults.append("is not valid yet")
    return faults


def format_days(time: timedelta) -> str:
    return f"{time.days} day{'' if time.days == 1 else 's'}"
