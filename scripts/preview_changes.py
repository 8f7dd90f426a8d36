"""What a preview would do, and what of it people will notice: the JSON of `pulumi preview --json` in, plain data out.

Of the JSON only the steps' inputs and the errors are read: never the configuration, nor what a resource's outputs hold.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# What the engine puts for a value that only the update itself will tell.
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN, SECRET = "[unknown]", "[secret]"
"""What stands for a value that cannot be shown."""

COMMANDS = ("command:remote:Command", "command:local:Command")
INSTANCE = "aws:ec2/instance:Instance"


@dataclass(frozen=True)
class Step:
    """What is done to one resource. Components are left out: they are nothing by themselves."""

    op: str
    type: str
    name: str
    component: str
    """The class in components/ that it belongs to; empty at the top."""
    old: Mapping[str, Any]
    """Its inputs."""
    new: Mapping[str, Any]
    changed: tuple[str, ...] = ()
    """Properties; none where a resource is replaced because another is."""
    replaced_for: tuple[str, ...] = ()
    """Those of them that cannot change but by a replacement."""

    @property
    def is_command(self) -> bool:
        return self.type in COMMANDS

    @cached_property
    def script(self) -> tuple[str, list[str]]:
        """Name and arguments of the script that a `RemoteScript` runs."""
        return _script(self.new)


@dataclass(frozen=True)
class Preview:
    steps: Sequence[Step]
    """What changes, in an order of its own: the engine's is another one each time."""
    error: str
    """Why there is no preview; empty where there is one."""


@dataclass(frozen=True)
class Configuration:
    """haproxy.cfg before, `None` where there is none, and after."""

    old: str | None
    new: str


@dataclass(frozen=True)
class Notice:
    """Something that people will notice."""

    names: tuple[str, ...]
    what: str
    because: tuple[str, ...] = ()


# Reading


def read_preview(text: str) -> Preview:
    """Raises `ValueError` where the engine did not get as far as to write JSON."""
    digest: dict[str, Any] = json.loads(text.replace(_UNKNOWN, UNKNOWN))
    steps = [_step(step) for step in digest.get("steps", [])]
    return Preview(
        steps=sorted((step for step in steps if step), key=_order),
        error=_error(digest.get("diagnostics", [])),
    )


def _step(step: Mapping[str, Any]) -> Step | None:
    old: Mapping[str, Any] = step.get("oldState") or {}
    new: Mapping[str, Any] = step.get("newState") or {}
    if step["op"] not in ("create", "update", "replace", "delete", "import") or not (new or old)["custom"]:
        return None
    _, _, types, name = step["urn"].split("::", 3)
    *components, own = types.split("$")
    return Step(
        op=step["op"],
        type=own,
        name=name,
        component=components[0].rpartition(":")[2] if components else "",
        old=old.get("inputs", {}),
        new=new.get("inputs", {}),
        changed=tuple(step.get("diffReasons") or ()),
        replaced_for=tuple(step.get("replaceReasons") or ()),
    )


def _order(step: Step) -> tuple[object, ...]:
    """Edge 2 before edge 10."""
    parts = re.split(r"(\d+)", step.name)
    return (
        step.component,
        step.is_command,
        [int(part) if part.isdecimal() else part for part in parts],
        step.type,
    )


def _error(diagnostics: Iterable[Mapping[str, str]]) -> str:
    """The program's own words, or the engine's where it said none."""
    said = [line for line in diagnostics if line["severity"] in ("error", "info#err")]
    if not any(line["severity"] == "error" for line in said):
        return ""
    own = [line for line in said if "Program exited with non-zero exit code" not in line["message"]]
    return "\n".join(line["message"].rstrip("\n") for line in own or said).strip("\n").removeprefix("error: ")


def _script(inputs: Mapping[str, Any]) -> tuple[str, list[str]]:
    try:
        words = shlex.split(inputs.get("create", ""), comments=True)
    except ValueError:
        return "", []
    at = next((index for index, word in enumerate(words) if word.endswith(".sh")), None)
    return ("", []) if at is None else (words[at].rpartition("/")[2], words[at + 1 :])


# haproxy.cfg


def configuration(steps: Iterable[Step]) -> Configuration | None:
    """`None` where it stays as it is."""
    for step in steps:
        old, new = step.old.get("stdin"), step.new.get("stdin")
        if step.script[0] == "apply-haproxy-config.sh" and new and old != new:
            return Configuration(old, new)
    return None


def _servers(haproxy_cfg: str) -> dict[str, str]:
    """The addresses of all nodes."""
    servers = re.findall(r"^\s*server (\S+) (\d+\.\d+\.\d+\.\d+):", haproxy_cfg, re.MULTILINE)
    return {name: address for name, address in servers if not address.startswith("127.")}


# Judging

_CUT_OFF = {
    "load-balancer": "nobody can publish, watch or administer meanwhile",
    "database": "nodes do not find each other meanwhile",
}
_NODE_CUT_OFF = "who publishes to it or watches through it is cut off"
_LOST = {"load-balancer": "", "database": ", and what it holds is lost"}
_NODE_LOST = ", and what it recorded is lost"


def notices(steps: Sequence[Step]) -> list[Notice]:
    """Everything that is replaced, destroyed, drained or interrupts somebody; the machines that matter most come first."""
    machines = [step for step in steps if step.type == INSTANCE]
    machines.sort(key=lambda step: ["load-balancer", "database", step.name].index(step.name))
    found = [notice for step in machines for notice in _of_machine(step)]
    found += _of_haproxy_cfg(configuration(steps))
    found += [
        notice
        for step in steps
        for notice in (_of_command(step) if step.is_command else _of_other(step))
        if step.type != INSTANCE
    ]
    return _together(found)


def _of_machine(step: Step) -> Iterable[Notice]:
    cut_off, lost = _CUT_OFF.get(step.name, _NODE_CUT_OFF), _LOST.get(step.name, _NODE_LOST)
    if step.op == "replace":
        yield Notice((step.name,), f"the machine is replaced: {cut_off}{lost}", step.replaced_for)
    elif step.op == "delete":
        yield Notice((step.name,), f"the machine is destroyed: {cut_off}{lost}")
    elif step.op == "update" and (
        stopped := {"instanceType", "userData", "userDataBase64"} & {*step.changed}
    ):
        yield Notice((step.name,), f"the machine stops and starts: {cut_off}", tuple(sorted(stopped)))


def _of_haproxy_cfg(change: Configuration | None) -> Iterable[Notice]:
    if change and change.old:
        old, new = _servers(change.old), _servers(change.new)
        for name, address in old.items():
            if name not in new:
                yield Notice((name,), "leaves haproxy.cfg: nobody new is sent to it")
            elif new[name] != address:
                yield Notice((name,), "has another address in haproxy.cfg")


def _of_command(step: Step) -> Iterable[Notice]:
    if step.op not in ("update", "replace"):
        return
    script, arguments = step.script
    other_input = "stdin" in step.changed
    if script == "set-up-media-node.sh" and (other_input or arguments[:2] != _script(step.old)[1][:2]):
        yield Notice(
            (step.name.removesuffix("-ant-media"),),
            f"Ant Media Server restarts if its mode, licence or database is another: {_NODE_CUT_OFF}",
        )
    elif script == "install-valkey.sh" and other_input:
        yield Notice(("database",), f"restarts with another password: {_CUT_OFF['database']}")
    elif script == "issue-certificate.sh" and _wanted(step.old) != _wanted(step.new):
        yield Notice(
            (step.name,),
            "another certificate is asked for, and the authority limits how often; HAProxy serves the one it has until then",
        )


def _wanted(inputs: Mapping[str, Any]) -> object:
    """What a certificate is asked for with, but for what is no reason to ask anew."""
    script, arguments = _script(inputs)
    told = list(zip(arguments[::2], arguments[1::2], strict=False))
    no_reason = [word for pair in told if pair[0] in ("--email", "--address") for word in pair]
    return script, [word for word in arguments if word not in no_reason]


def _of_other(step: Step) -> Iterable[Notice]:
    if step.op not in ("replace", "delete"):
        return
    event = "replaced" if step.op == "replace" else "deleted"
    match step.type:
        case "aws:ec2/eip:Eip":
            what = f"the Elastic IP is {event}: every DNS record and firewall that names it must follow"
        case "aws:route53/record:Record":
            what = f"the DNS record is {event}: who knows the cluster by this name does not find it"
        case "aws:secretsmanager/secret:Secret":
            what = f"the secret that keeps the certificate is {event}: a new load balancer would have to ask for one"
        case kind:
            what = f"{spelled(kind)} {event}"
    yield Notice((step.name,), what, step.replaced_for)


def _together(found: Iterable[Notice]) -> list[Notice]:
    """Those that say the same of several names become one."""
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for notice in found:
        names.setdefault((notice.what, notice.because), []).extend(notice.names)
    return [Notice(tuple(of), what, because) for (what, because), of in names.items()]


def spelled(type: str) -> str:
    """`aws:ec2/eipAssociation:EipAssociation` is an Elastic IP association."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type.rpartition(":")[2])
    return words.capitalize().replace("Eip", "Elastic IP")
