"""Finds the changes of a preview that interrupt users or cannot be undone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.address_plan import Role
from operations.preview.changes import Step
from operations.preview.haproxy_cfg import (
    HAProxyCfgChange,
    find_haproxy_cfg_change,
    read_applications,
    read_rtmps_port,
    read_servers,
)
from operations.resources import INSTANCE, REMOTE_COMMAND, format_type, parse_script
from policy.resource import UNKNOWN, Resource


@dataclass(frozen=True)
class PreviewWarning:
    names: tuple[str, ...]
    """Resources or applications that the warning is about."""
    message: str
    reasons: tuple[str, ...] = ()
    """Changed properties that cause it."""


_NODE_OUTAGE = "its publishers and viewers are disconnected"
_OUTAGES: Mapping[str, str] = {
    Role.LOAD_BALANCER: "nobody can publish, play or administer until it is back",
    Role.DATABASE: "its standby on the load balancer leads until it is back",
}
"""By machine; all others are nodes."""
_NODE_LOSS = ", and its recordings are lost"
_LOSSES = {
    Role.LOAD_BALANCER: "",
    Role.DATABASE: (
        ", and it gets its data from the standby. If the load balancer is replaced too, the data is lost (make registry-backup "
        "copies it): then every node is drained and restarts, one node of a role at a time, to register its streams again"
    ),
}
_DELETIONS: Mapping[str, str] = {Role.DATABASE: "its data is lost (make registry-backup copies it)"}
"""What no replacement follows."""


def find_warnings(steps: Sequence[Step], before: Sequence[Resource] = ()) -> list[PreviewWarning]:
    """Returns a warning for everything that is replaced, deleted, drained or restarted; the load balancer comes first.

    `before` is the stack before the update. It tells which applications upload their recordings.
    """
    losses = {**_LOSSES, "": _describe_lost_recordings(before)}
    machines = [step for step in steps if step.type == INSTANCE]
    drained, seconds = _find_drained(steps)
    machines.sort(key=lambda step: [Role.LOAD_BALANCER, Role.DATABASE, step.name].index(step.name))
    warnings = [
        warning for step in machines for warning in _check_machine(step, losses.get(step.name, losses[""]))
    ]
    warnings += _check_upgrade(steps)
    warnings += _check_haproxy_cfg(find_haproxy_cfg_change(steps))
    warnings += [
        warning
        for step in steps
        if step.type != INSTANCE
        for warning in (_check_command(step, drained) if step.is_command else _check_resource(step))
    ]
    warnings += _check_removals(steps)
    if drained:
        total = seconds * len(drained)
        in_all = f" ({total} s in all)" if total > seconds else ""
        message = "drained before it restarts or is replaced, one node of a role after the other"
        warnings.append(PreviewWarning(tuple(drained), f"{message}: {_describe_wait(seconds)}{in_all}"))
    return _merge(warnings)


def _describe_lost_recordings(before: Sequence[Resource]) -> str:
    """Returns what is lost with a node, from the settings of the applications that its recordings belong to."""
    commands = [parse_script(resource.inputs) for resource in before if resource.type == REMOTE_COMMAND]
    # The arguments before the applications are settings in JSON.
    applications = {
        word
        for script, words in commands
        if script == "set-up-media-node.sh"
        for word in words[3:]
        if not word.startswith("{")
    }
    uploading = {
        name
        for script, words in commands
        if script == "set-app-settings.py"
        for name, values in json.loads(words[1]).items()
        if values.get("s3RecordingEnabled")
    }
    if not uploading:
        return _NODE_LOSS
    if uploading >= applications:
        return ", and recordings that are not in S3 yet are lost"
    return f"{_NODE_LOSS}, except those of {', '.join(sorted(uploading))} that are in S3"


def _check_machine(step: Step, loss: str) -> Iterable[PreviewWarning]:
    outage = _OUTAGES.get(step.name, _NODE_OUTAGE)
    if step.op == "replace":
        reason = " because it is marked in the state" if step.tainted else ""
        yield PreviewWarning(
            (step.name,), f"the machine is replaced{reason}: {outage}{loss}", step.replace_reasons
        )
    elif step.op == "delete":
        effect = _DELETIONS.get(step.name) or f"{outage}{loss}"
        yield PreviewWarning((step.name,), f"the machine is deleted: {effect}")
    elif step.op == "update":
        reasons = {"instanceType", "userData", "userDataBase64"} & {*step.changed}
        if reasons:
            yield PreviewWarning(
                (step.name,), f"the machine stops and starts: {outage}", tuple(sorted(reasons))
            )
        old, new = (_volume_size(inputs) for inputs in (step.old, step.new))
        if old != new:
            yield PreviewWarning(
                (step.name,),
                f"the volume and its file system grow from {old} to {new} GiB while the machine runs. AWS does not make a volume "
                "smaller",
            )


def _volume_size(instance: Mapping[str, Any]) -> Any:
    return instance.get("rootBlockDevice", {}).get("volumeSize")


def _check_upgrade(steps: Sequence[Step]) -> Iterable[PreviewWarning]:
    """Yields a warning about nodes that get another zip of Ant Media Server, in the order in which they get it."""
    upgraded = {
        step.name.removesuffix("-ant-media"): (parse_script(step.old)[1][0], step.script[1][0])
        for step in steps
        if _is_upgrade(step)
    }
    for change in dict.fromkeys(upgraded.values()):
        old, new = map(_format_source, change)
        yield PreviewWarning(
            tuple(sorted(name for name in upgraded if upgraded[name] == change)),
            f"Ant Media Server is upgraded in this order, one node after another, from {old} to {new}. "
            "A node that does not become ready ends the update, and the others keep serving",
        )


def _restarts(arguments: Sequence[str]) -> Sequence[str]:
    """Returns the arguments of set-up-media-node.sh that restart the server: mode and settings."""
    return [*arguments[1:2], *arguments[3:4]]


def _panel_user(inputs: Mapping[str, Any]) -> str:
    """Returns the argument of set-up-media-node.sh that names the user of the web panel."""
    return parse_script(inputs)[1][2]


def _is_upgrade(step: Step) -> bool:
    script, arguments = step.script
    return (
        step.op in ("update", "replace")
        and script == "set-up-media-node.sh"
        and parse_script(step.old)[1][:1] != arguments[:1]
    )


def _format_source(source: str) -> str:
    """Returns words for the first argument of set-up-media-node.sh."""
    kind, _, checksum = source.partition(":")
    return f"the zip {checksum[:12]}" if kind == "zip" else "the server of the image"


def _check_haproxy_cfg(change: HAProxyCfgChange | None) -> Iterable[PreviewWarning]:
    if change and change.old:
        old, new = read_servers(change.old), read_servers(change.new)
        for name, address in old.items():
            if name not in new:
                yield PreviewWarning((name,), "is removed from haproxy.cfg: it receives no new clients")
            elif new[name] != address:
                yield PreviewWarning((name,), "changes its address in haproxy.cfg")
        for name in sorted({*read_applications(change.old)} - {*read_applications(change.new)}):
            yield PreviewWarning(
                (name,), "is removed from the applications: its publishers and viewers get 404"
            )
        old_port, port = read_rtmps_port(change.old), read_rtmps_port(change.new)
        if old_port and not port:
            yield PreviewWarning(("RTMPS",), f"port {old_port} is closed: its publishers cannot connect")
        elif old_port and old_port != port:
            yield PreviewWarning(
                ("RTMPS",),
                f"moves from port {old_port} to {port}: publishers that use {old_port} cannot connect. Give them the new port",
            )


def _check_command(step: Step, drained: Sequence[str]) -> Iterable[PreviewWarning]:
    if step.op not in ("update", "replace"):
        return
    script, arguments = step.script
    if script == "set-up-media-node.sh":
        node = step.name.removesuffix("-ant-media")
        if message := _describe_set_up(step, node in drained):
            yield PreviewWarning((node,), message)
    elif script == "install-valkey.sh" and step.tainted and arguments[0] == "database":
        yield PreviewWarning(
            (Role.DATABASE,), f"restarts if its configuration changes: {_OUTAGES[Role.DATABASE]}"
        )
    elif script == "issue-certificate.sh" and _certificate_request(step.old) != _certificate_request(
        step.new
    ):
        yield PreviewWarning(
            (step.name,),
            "a new certificate is requested, and the authority limits how often; HAProxy serves the current one until then",
        )


def _describe_set_up(step: Step, drained: bool) -> str | None:
    """Returns what a further run of set-up-media-node.sh may do to the users of the node, or `None`."""
    if step.new.get("stdin") == UNKNOWN:
        # The registry's id, which install-valkey.sh prints.
        return (
            "if the database comes back without its data, the node is drained and Ant Media Server restarts, one node of a role "
            f"after the other, so that live streams are registered again: {_NODE_OUTAGE}"
        )
    restarts = _restarts(step.script[1]) != _restarts(parse_script(step.old)[1])
    if not _is_upgrade(step) and (step.tainted or ("stdin" in step.changed and drained) or restarts):
        return f"Ant Media Server restarts if its mode, licence, database or settings change: {_NODE_OUTAGE}"
    old, new = _panel_user(step.old), _panel_user(step.new)
    if old != new:
        return (
            f"the program logs in to the web panel as {new} instead of {old}. The panel keeps its users: create this one there, "
            "or set panelEmail to one that it has"
        )
    return None


def _find_drained(steps: Sequence[Step]) -> tuple[list[str], int]:
    """Returns the nodes that are drained before they restart or are replaced, and for how many seconds at most."""
    drained: list[str] = []
    seconds = 0
    for step in steps:
        script, arguments = parse_script(step.old)
        if script == "drain-server.sh" and step.op in ("update", "replace"):
            # After a new database the new arguments are unknown.
            new = step.script[1] or arguments
            if step.tainted or not step.script[0] or new[2:] != arguments[2:]:
                drained.append(step.name.removesuffix("-drain"))
                seconds = int(new[1])
    return drained, seconds


def _check_removals(steps: Sequence[Step]) -> Iterable[PreviewWarning]:
    for step in steps:
        script, arguments = parse_script(step.old)
        if script == "drain-removed-servers.sh" and step.script[0] == script:
            wait, *staying = step.script[1]
            removed = [name for name in arguments[1:] if name not in staying]
            if removed:
                yield PreviewWarning(
                    tuple(removed), f"drained before its machine is deleted: {_describe_wait(int(wait))}"
                )


def _describe_wait(seconds: int) -> str:
    if seconds == 0:
        return "drainSeconds is 0, so its connections are closed at once"
    return f"the update waits for its connections for at most {seconds} s and then closes them"


def _certificate_request(inputs: Mapping[str, Any]) -> object:
    """Returns the script and the arguments that require a new certificate when they change."""
    script, arguments = parse_script(inputs)
    pairs = zip(arguments[::2], arguments[1::2], strict=False)
    irrelevant = [word for pair in pairs if pair[0] in ("--email", "--address") for word in pair]
    return script, [word for word in arguments if word not in irrelevant]


def _check_resource(step: Step) -> Iterable[PreviewWarning]:
    if step.op not in ("replace", "delete"):
        return
    event = "replaced" if step.op == "replace" else "deleted"
    match step.type:
        case "aws:ec2/eip:Eip":
            message = f"the Elastic IP is {event}: update every DNS record and firewall that names it"
        case "aws:route53/record:Record":
            message = f"the DNS record is {event}: clients that use this name do not find the cluster"
        case "aws:secretsmanager/secret:Secret":
            message = f"the secret that stores the certificate is {event}: a new load balancer must request a new certificate"
        case "aws:s3/bucket:Bucket" if step.old.get("forceDestroy"):
            message = f"the bucket is {event}, and all recordings in it are deleted"
        case "aws:s3/bucket:Bucket":
            message = (
                f"the bucket {step.old.get('bucket')} leaves the stack. It and its recordings stay in AWS"
            )
        case "aws:iam/accessKey:AccessKey" if step.op == "delete":
            message = (
                "recordings are no longer uploaded, and applications that are still told to upload do not finish them: set "
                "s3RecordingEnabled to false in applicationSettings"
            )
        case type:
            message = f"{format_type(type)} {event}"
    yield PreviewWarning((step.name,), message, step.replace_reasons)


def _merge(warnings: Iterable[PreviewWarning]) -> list[PreviewWarning]:
    """Merges warnings with the same message and reasons into one with several names."""
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for warning in warnings:
        names.setdefault((warning.message, warning.reasons), []).extend(warning.names)
    return [PreviewWarning(tuple(merged), message, reasons) for (message, reasons), merged in names.items()]
