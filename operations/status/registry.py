"""The cluster registry as each node sees it: reads show-registry.sh on the nodes and compares. Reads its standby's state."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import asyncssh

from cluster.address_plan import Role
from cluster.machine_scripts import INSTALLED_SCRIPTS
from operations.ssh import CheckError, Failed, last_line, visit_machines
from operations.stack_state import Machine, StackState

CHECK_TIMEOUT = 40
"""Seconds for one node."""
SECOND_CHECK_DELAY = 11
"""Seconds. A playlist that ends meanwhile is then older than show-registry.sh prints."""


@dataclass
class Application:
    """An application on one node."""

    key: str = ""
    """Digest of its clusterCommunicationKey; empty outside a cluster."""
    played: list[str] = field(default_factory=list[str])
    """Names of the playlists that the node is writing, without their suffix."""
    live: set[str] = field(default_factory=set[str])
    """Ids of the live streams in the registry, as the node sees it."""
    status: str = "200"
    """Of the REST API that shows the registry."""
    is_complete: bool = False
    """True if `live` holds all streams, also those beyond the pages that were read."""


Views = Mapping[str, Mapping[str, Application]]
"""The applications on each node, by the names of both."""


class Fault(StrEnum):
    """What is wrong with a node, as a sentence about `node` and `details`."""

    UNREADABLE = "{node} cannot read the cluster registry ({details})."
    UNKNOWN = (
        "{node} has live streams that the cluster registry does not know: {details}. "
        "Other nodes cannot play them until Ant Media Server on {node} restarts."
    )
    INVISIBLE = (
        "{node} does not see live streams of other nodes: {details}. "
        "It uses another cluster registry, or none: make drift shows whether its settings were changed."
    )
    OTHER_KEY = (
        "{node} has another clusterCommunicationKey than most nodes ({details}): they reject its requests "
        "until Ant Media Server on {node} restarts."
    )
    STANDBY_LEADS = (
        "The database does not answer: its standby on the {node} is the cluster registry until it is back."
    )
    NO_STANDBY = (
        "The standby of the cluster registry on the {node} {details}. "
        "It could not replace a database that fails now."
    )


class Finding(NamedTuple):
    fault: Fault
    node: str
    detail: str
    """A stream or an application."""


@dataclass(frozen=True)
class Registry:
    """What the comparison of the nodes found."""

    findings: Sequence[Finding] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why a node could not be asked, by node."""

    @property
    def problems(self) -> Sequence[str]:
        """A sentence for each fault of a node."""
        details: dict[tuple[Fault, str], list[str]] = {}
        for fault, node, detail in self.findings:
            details.setdefault((fault, node), []).append(detail)
        return [fault.format(node=node, details=_shorten(all)) for (fault, node), all in details.items()]


def read_applications(output: str) -> dict[str, Application]:
    """Reads the output of show-registry.sh."""
    applications: dict[str, Application] = {}
    for name, block in zip(*[iter(re.split(r"(?m)^=== (\S+)\n", output)[1:])] * 2, strict=True):
        application = applications[name] = Application()
        for line in block.splitlines():
            kind, _, value = line.partition(" ")
            match kind:
                case "key":
                    application.key = value
                case "plays":
                    application.played.append(value.removesuffix(".m3u8"))
                case "answer":
                    application.status = value
                case "known":
                    page: list[dict[str, Any]] = json.loads(value)
                    application.live |= {one["streamId"] for one in page if one["status"] == "broadcasting"}
                    application.is_complete = not page
                case _:
                    pass
    return applications


def find_faults(views: Views) -> list[Finding]:
    """Returns what is wrong with the nodes' views of the registry."""
    findings = [finding for node in views for finding in _check_streams(views, node)]
    for app in sorted({app for applications in views.values() for app in applications}):
        keys = {node: view[app].key for node, view in views.items() if app in view and view[app].key}
        common = Counter(keys.values()).most_common(1)
        findings += [Finding(Fault.OTHER_KEY, node, app) for node, key in keys.items() if key != common[0][0]]
    return findings


def _check_streams(views: Views, node: str) -> Iterator[Finding]:
    for app, view in views[node].items():
        # Status 403: the application's REST API is closed to its own machine.
        if view.status not in ("200", "403"):
            yield Finding(Fault.UNREADABLE, node, f"{app} answers {view.status}")
        if view.status != "200" or not view.is_complete:
            continue
        for name in sorted(view.played):
            if not _belongs_to(name, view.live):
                yield Finding(Fault.UNKNOWN, node, f"{app}/{name}")
        others = [views[other][app] for other in views if other != node and app in views[other]]
        # Streams that another node sees and plays: records of a node that crashed do not count.
        certain = {
            stream
            for other in others
            for stream in other.live
            if any(_belongs_to(name, [stream]) for name in other.played)
        }
        for stream in sorted(certain - view.live):
            yield Finding(Fault.INVISIBLE, node, f"{app}/{stream}")


def _belongs_to(name: str, streams: Iterable[str]) -> bool:
    """True if a playlist is that of a stream or of one of its renditions, such as stream_720p or stream_adaptive."""
    return any(name == stream or name.startswith((f"{stream}_", f"{stream}-")) for stream in streams)


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_registry(state: StackState, nodes: Collection[str]) -> Registry:
    """Compares the nodes' views of the registry. Reports what two checks find: a stream may begin or end during the first."""
    return asyncio.run(_check_registry(state, nodes))


async def _check_registry(state: StackState, nodes: Collection[str]) -> Registry:
    findings, unreachable = await _find_faults(state, nodes)
    if findings:
        await asyncio.sleep(SECOND_CHECK_DELAY)
        again, unreachable = await _find_faults(state, nodes)
        findings = [finding for finding in again if finding in findings]
    return Registry(findings, unreachable)


async def _find_faults(state: StackState, nodes: Collection[str]) -> tuple[list[Finding], Mapping[str, str]]:
    views, unreachable = await _read_views(state, nodes)
    # It has the standby.
    balancers = [machine for machine in state.machines if machine.name == Role.LOAD_BALANCER]
    standby = await visit_machines(state.machines, _show_standby, balancers)
    # An unreachable load balancer is reported by every node.
    return [
        *find_faults(views),
        *(finding for found in standby if not isinstance(found, Failed) for finding in found),
    ], unreachable


def read_standby(state: str) -> list[Finding]:
    """Reads the output of show-standby.sh."""
    match state.strip():
        case "none" | "follows":
            return []
        case "leads":
            return [Finding(Fault.STANDBY_LEADS, "load balancer", "")]
        case problem:
            return [Finding(Fault.NO_STANDBY, "load balancer", problem)]


async def _show_standby(machine: Machine, connection: asyncssh.SSHClientConnection) -> list[Finding]:
    return read_standby(await _run(machine, connection, "show-standby.sh"))


async def _read_views(state: StackState, nodes: Collection[str]) -> tuple[Views, Mapping[str, str]]:
    wanted = [machine for machine in state.machines if machine.name in nodes]
    results = await visit_machines(state.machines, _show_registry, wanted)
    views: dict[str, Mapping[str, Application]] = {}
    unreachable: dict[str, str] = {}
    for machine, result in zip(wanted, results, strict=True):
        if isinstance(result, Failed):
            unreachable[machine.name] = result.reason
        else:
            views[machine.name] = result
    return views, unreachable


async def _show_registry(
    machine: Machine, connection: asyncssh.SSHClientConnection
) -> Mapping[str, Application]:
    return read_applications(await _run(machine, connection, "show-registry.sh"))


async def _run(machine: Machine, connection: asyncssh.SSHClientConnection, script: str) -> str:
    if f"=== {script}\n" not in machine.deployed_files:
        raise CheckError(f"{script} is not deployed yet; the next update installs it")
    async with asyncio.timeout(CHECK_TIMEOUT):
        run = await connection.run(
            f"sudo timeout {CHECK_TIMEOUT - 2} {INSTALLED_SCRIPTS}/{script}", errors="replace"
        )
    if run.exit_status != 0:
        raise CheckError(last_line(run.stderr) or f"{script} failed with {run.exit_status}")
    return str(run.stdout)
