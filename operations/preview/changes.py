"""What a preview would do, and what of it people will notice: the JSON of `pulumi preview --json` in, plain data out.

Of the JSON only the steps' inputs and the errors are read: never the configuration, nor what a resource's outputs hold.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from policy.rules import UNKNOWN, Resource

# What the engine puts for a value that only the update itself will tell.
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

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
    marked: bool = False
    """Whether it is replaced because the state says so: `make drift` and `pulumi state taint` mark it."""

    @property
    def is_command(self) -> bool:
        return self.type in COMMANDS

    @cached_property
    def script(self) -> tuple[str, list[str]]:
        """Name and arguments of the script that a `RemoteScript` runs."""
        return script_of(self.new)


@dataclass(frozen=True)
class ByHand:
    """Something in the cloud that is no longer what the last update made of it."""

    change: Step
    """An update or a delete, from what the state holds to what is there."""
    then: str
    """What the update that is previewed does about it."""


@dataclass(frozen=True)
class Preview:
    steps: Sequence[Step]
    """What changes, in an order of its own: the engine's is another one each time."""
    error: str
    """Why there is no preview; empty where there is one."""
    by_hand: Sequence[ByHand] = ()
    before: Sequence[Resource] = ()
    """The whole stack as it is in the cloud."""
    after: Sequence[Resource] = ()
    """The whole stack as it would be after the update."""
    protected: Sequence[str] = ()
    """What would be replaced or deleted, and must not: then there is an error too."""


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
    """Raises `ValueError` where the engine did not get as far as to write JSON.

    Without `--show-sames` the resources that stay as they are are missing from `before`, `after` and `by_hand`.
    """
    digest: dict[str, Any] = json.loads(text.replace(_UNKNOWN, UNKNOWN))
    all_steps = [step for step in digest.get("steps", []) if _state(step)["custom"]]
    # A preview first reads all that the state holds from the cloud; what the program wants comes after.
    held = {step["urn"]: step for step in all_steps if step["op"] == "refresh"}
    wanted = [step for step in all_steps if step["op"] != "refresh"]
    diagnostics = digest.get("diagnostics", [])
    error = _error(diagnostics)
    by_hand = _by_hand(held, wanted, finished=not error)
    return Preview(
        steps=sorted((_step(step) for step in wanted if step["op"] in _OPS), key=_order),
        error=error,
        by_hand=sorted(by_hand, key=lambda found: _order(found.change)),
        before=[_resource(step["urn"], step["oldState"]) for step in wanted if step.get("oldState")],
        after=[_resource(step["urn"], step["newState"]) for step in wanted if step.get("newState")],
        protected=_protected(diagnostics),
    )


_OPS = ("create", "update", "replace", "delete", "import")

IGNORED = "rootBlockDevice.tags"
"""What the program leaves as it is (components/machine.py), and a refresh sees with other eyes after new default tags."""


def _state(step: Mapping[str, Any]) -> Mapping[str, Any]:
    return step.get("newState") or step["oldState"]


def _step(step: Mapping[str, Any]) -> Step:
    old: Mapping[str, Any] = step.get("oldState") or {}
    new: Mapping[str, Any] = step.get("newState") or {}
    *components, own, name = _parts(step["urn"])
    marked = bool(old.get("taint")) and step["op"] == "replace"
    return Step(
        op=step["op"],
        type=own,
        name=name,
        component=components[0].rpartition(":")[2] if components else "",
        old=old.get("inputs", {}),
        new=new.get("inputs", {}),
        changed=tuple(step.get("diffReasons") or ()),
        # Of what is marked the engine says that its id is the reason.
        replaced_for=() if marked else tuple(step.get("replaceReasons") or ()),
        marked=marked,
    )


def _parts(urn: str) -> list[str]:
    """The types of the components around a resource, its own type and its name."""
    _, _, types, name = urn.split("::", 3)
    return [*types.split("$"), name]


def _resource(urn: str, state: Mapping[str, Any]) -> Resource:
    *_, type, name = _parts(urn)
    return Resource(
        type,
        name,
        state.get("inputs", {}),
        state.get("protect", False),
        {
            key: [_parts(urn)[-1] for urn in urns or ()]
            for key, urns in state.get("propertyDependencies", {}).items()
        },
    )


def _by_hand(
    held: Mapping[str, Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], finished: bool
) -> Iterator[ByHand]:
    """A refresh's own step does not say what it found. The program's step of the same resource begins with that."""
    # A resource that got another name is held under its old one.
    steps = {step.get("oldState", {}).get("urn", step["urn"]): step for step in wanted}
    for urn, refresh in held.items():
        step = steps.get(urn, {})
        old, found = _unordered(refresh["oldState"]), _unordered(step.get("oldState"))
        if found is None and (step or finished):
            yield ByHand(
                _step({"op": "delete", "urn": urn, "oldState": old}),
                "creates it again" if step else "leaves it so",
            )
        elif found is not None:
            was, now = _flat(old), _flat(found)
            if places := [place for place in differing(was, now) if not place.startswith(IGNORED)]:
                keys = dict.fromkeys(re.split(r"[.\[]", place)[0] for place in places)
                change = {"op": "update", "urn": urn, "oldState": old, "newState": found, "diffReasons": keys}
                new = _flat(_unordered(step.get("newState", {})))
                back = all(new.get(place) == was.get(place) for place in places)
                then = {"replace": "replaces it", "delete": "deletes it", "same": "leaves it so"}
                yield ByHand(_step(change), then.get(step["op"], "changes it back" if back else "changes it"))


def _unordered(value: Any) -> Any:
    """AWS gives back most lists in an order of its own."""
    match value:
        case dict():
            return {key: _unordered(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            return sorted(map(_unordered, cast(list[Any], value)), key=json.dumps)
        case _:
            return value


def _flat(state: Mapping[str, Any]) -> dict[str, object]:
    return dict(leaves("", state.get("inputs", {})))


def leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Every single value and where it is, without the engine's own notes; of a policy what it says, not how it is written."""
    if isinstance(value, str) and value.startswith("{"):
        value = _document(value)
    if isinstance(value, dict):
        for key, member in sorted(cast(dict[str, object], value).items()):
            if not key.startswith("__"):
                yield from leaves(f"{path}.{key}".lstrip("."), member)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[object], value)):
            yield from leaves(f"{path}[{index}]", item)
    elif value is not None:
        yield path, value


def differing(was: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The places at which they have another value."""
    return [place for place in {**was, **now} if was.get(place) != now.get(place)]


def _document(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _protected(diagnostics: Iterable[Mapping[str, str]]) -> list[str]:
    refused = re.compile(
        r'resource "[^"]*::([^":]+)"(?: as part of .*)?\s+(?:as it is currently marked for protection|cannot be deleted\s+because it is protected)'
    )
    return [found[1] for line in diagnostics for found in [refused.search(line["message"])] if found]


def _order(step: Step) -> tuple[object, ...]:
    """Edge 2 before edge 10."""
    parts = re.split(r"(\d+)", step.name)
    return (
        step.component,
        step.is_command,
        [int(part) if part.isdecimal() else part for part in parts],
        step.type,
    )


_NO_REASON = ("Program exited with non-zero exit code", "error: preview failed")


def _error(diagnostics: Iterable[Mapping[str, str]]) -> str:
    """The program's own words, or the engine's where it said none."""
    said = [line for line in diagnostics if line["severity"] in ("error", "info#err")]
    if not any(line["severity"] == "error" for line in said):
        return ""
    own = [line for line in said if not any(words in line["message"] for words in _NO_REASON)]
    return "\n".join(line["message"].rstrip("\n") for line in own or said).strip("\n").removeprefix("error: ")


def script_of(inputs: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Name and arguments of the script that a remote command's inputs run; empty where it runs none."""
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


def _applications(haproxy_cfg: str) -> set[str]:
    """Those whose paths the frontends for publishing and playing let in."""
    rules = re.findall(r"deny_status 404 unless \{ path,field\(2,/\) -m str ([^}]*)\}", haproxy_cfg)
    return {name for rule in rules for name in rule.split()}


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
        marked = " because it is marked for it" if step.marked else ""
        yield Notice((step.name,), f"the machine is replaced{marked}: {cut_off}{lost}", step.replaced_for)
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
        for name in sorted(_applications(change.old) - _applications(change.new)):
            yield Notice((name,), "is no application any more: who publishes to it or watches it gets 404")


def _of_command(step: Step) -> Iterable[Notice]:
    if step.op not in ("update", "replace"):
        return
    script, arguments = step.script
    other_input = "stdin" in step.changed
    if script == "set-up-media-node.sh" and (
        other_input or step.marked or arguments[:2] != script_of(step.old)[1][:2]
    ):
        yield Notice(
            (step.name.removesuffix("-ant-media"),),
            f"Ant Media Server restarts if its mode, licence or database is another: {_NODE_CUT_OFF}",
        )
    elif script == "install-valkey.sh" and (other_input or step.marked):
        why = "with another password" if other_input else "if its configuration is another"
        yield Notice(("database",), f"restarts {why}: {_CUT_OFF['database']}")
    elif script == "issue-certificate.sh" and _wanted(step.old) != _wanted(step.new):
        yield Notice(
            (step.name,),
            "another certificate is asked for, and the authority limits how often; HAProxy serves the one it has until then",
        )


def _wanted(inputs: Mapping[str, Any]) -> object:
    """What a certificate is asked for with, but for what is no reason to ask anew."""
    script, arguments = script_of(inputs)
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
