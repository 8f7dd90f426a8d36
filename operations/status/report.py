"""Formats the status of a cluster as plain text."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime

from cluster.settings.model import NAMESPACE
from operations.status.cluster import Cluster, Renewal, Unreachable
from operations.status.problems import find_problems, format_days
from operations.table import format_table

_INDENT = "  "


def format_report(cluster: Cluster, now: datetime) -> str:
    lines = ["Machines", *_format_machines(cluster), "", "HAProxy's servers"]
    match cluster.servers:
        case Unreachable(reason):
            lines.append(f"{_INDENT}not shown: {reason}")
        case servers:
            rows = [(server.backend, server.name, server.state, str(server.sessions)) for server in servers]
            lines.append(format_table([("backend", "server", "state", "sessions"), *rows], _INDENT))
    for certificate, ports in cluster.ports_by_certificate.items():
        facts = {
            "names": ", ".join(certificate.names) or "none",
            "issuer": certificate.issuer,
            "serial": certificate.serial,
            "key": certificate.key,
            "valid until": f"{_format_time(certificate.not_after)}, {format_days(certificate.not_after - now)} left",
            "trusted": f"no: {certificate.distrust}" if certificate.distrust else "yes",
        }
        lines += ["", f"Certificate on {ports}", format_table([*facts.items()], _INDENT)]
    lines += _format_applications(cluster)
    lines += ["", "Last renewal", f"{_INDENT}{_format_renewal(cluster.renewal)}", ""]
    if problems := find_problems(cluster, now):
        lines += ["Problems", *(f"{_INDENT}{problem}" for problem in problems)]
    elif unchecked := _list_unchecked(cluster):
        lines.append(f"No problems found, but {' and '.join(unchecked)} could not be checked")
    else:
        lines.append("No problems found")
    return "\n".join(lines)


def _format_machines(cluster: Cluster) -> list[str]:
    rows = [(m.name, m.role, m.private_address, m.public_address) for m in cluster.machines]
    match cluster.instances:
        case Unreachable(reason):
            return [format_table(rows, _INDENT), f"{_INDENT}state not shown: {reason}"]
        case instances:
            states = {instance.name: instance.state for instance in instances}
            return [format_table([(*row, states.get(row[0], "-")) for row in rows], _INDENT)]


def _format_applications(cluster: Cluster) -> list[str]:
    facts = {"served": ", ".join(cluster.applications)}
    if unserved := cluster.unserved_applications:
        # The whole list: with --path, an element of a list that has its default would leave the others empty.
        listed = json.dumps([*cluster.applications, unserved[0]])
        command = f"pulumi config set {NAMESPACE}:applications '{listed}'"
        facts["not served"] = f"{', '.join(unserved)}. To serve one, list it: {command}"
    return ["", "Applications", format_table([*facts.items()], _INDENT)]


def _list_unchecked(cluster: Cluster) -> list[str]:
    checks = {"HAProxy's servers": cluster.servers, "the machines' state at AWS": cluster.instances}
    unchecked = [name for name, result in checks.items() if isinstance(result, Unreachable)]
    servers = {
        node: result.reason
        for node, result in cluster.media_servers.items()
        if isinstance(result, Unreachable)
    }
    return [
        *unchecked,
        *_list_nodes("the cluster registry", cluster.registry.unreachable),
        *_list_nodes("load and applications", servers),
    ]


def _list_nodes(check: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """Yields the nodes of each reason why a check could not be made."""
    for reason in dict.fromkeys(reasons.values()):
        nodes = [node for node, own_reason in reasons.items() if own_reason == reason]
        yield f"{check} on {', '.join(nodes)} ({reason})"


def _format_renewal(renewal: Renewal | Unreachable | None) -> str:
    match renewal:
        case None:
            return "none: the certificate is your own (tls.certificate)"
        case Unreachable(reason):
            return f"not shown: {reason}"
        case Renewal(failed, datetime() as ended):
            return f"{'failed' if failed else 'succeeded'}, {_format_time(ended)}"
        case Renewal(failed):
            return "failed" if failed else "none yet on this machine: certbot's timer runs twice a day"


def _format_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
