"""What differs from a stack's state: the state, the engine's look at the cloud and the machines' own words in, plain data out."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import yaml

from operations.markdown import line_diff
from operations.preview.changes import IGNORED, INSTANCE, differing, leaves, script_of, spelled

GROUP = "aws:ec2/securityGroup:SecurityGroup"
REMOTE_COMMAND = "command:remote:Command"
RULES = {
    False: "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    True: "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
}
"""By whether it is a way out."""
BY_HAND = "by-hand-"
"""How the names of rules begin that are taken into the state for `pulumi up` to take them away."""
CLOUD = "the cloud"
STATE = "the state"

# How the engine marks what is a secret in a state that it exports.
_SECRET_MARK = "4dabf18193072939515e22adb298388d"
_HIDDEN = "[secret]"


@dataclass(frozen=True)
class Connection:
    """How the command provider logs in to a machine."""

    host: str
    port: int
    user: str
    private_key: str = field(repr=False)
    host_key: str


@dataclass(frozen=True)
class Step:
    """A script of templates/scripts that the program runs on a machine."""

    urn: str
    script: str

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]


@dataclass(frozen=True)
class Machine:
    urn: str
    """Of its instance."""
    connection: Connection
    jumped: bool
    """Whether the way there leads through the load balancer."""
    steps: Sequence[Step]
    deployed: str
    """What find-drift.sh compares with: the scripts, and haproxy.cfg where there is one."""

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]


@dataclass(frozen=True)
class Deployment:
    """What a state says was deployed."""

    machines: Sequence[Machine]
    instances: Mapping[str, str]
    """Names of the instances by their ids."""
    groups: Mapping[str, str]
    """Names of the security groups by their ids."""
    rules: Mapping[str, str]
    """Names of their rules by their ids."""
    provider: Mapping[str, Any] = field(repr=False)
    """What the provider of AWS was given."""
    secrets: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class Difference:
    where: str
    """A machine, or CLOUD."""
    name: str
    what: str
    lines: Sequence[str]
    marks: tuple[str, ...] = ()
    """URNs of the steps that put it right."""
    healed: bool = True
    """Whether an update puts it right."""


@dataclass(frozen=True)
class AddedRule:
    """A security group's rule that no update made."""

    id: str
    egress: bool
    name: str
    imported: bool
    """Whether the state has it already, for the next update to take it away."""


@dataclass(frozen=True)
class Unseen:
    """Stands for what could not be looked at."""

    where: str
    why: str


@dataclass(frozen=True)
class Drift:
    """Differences of one place follow each other."""

    differences: Sequence[Difference]
    unseen: Sequence[Unseen]
    unmarked: str = ""
    """Why the next update cannot be told to put it right."""

    @property
    def status(self) -> int:
        return 2 if self.unseen or self.unmarked else 1 if self.differences else 0


# The state


def read_state(text: str) -> Deployment:
    """Of `pulumi stack export --show-secrets`."""
    resources: list[dict[str, Any]] = json.loads(text)["deployment"].get("resources", [])
    alive = [one for one in resources if not one.get("delete")]
    commands = [one for one in alive if one["type"] == REMOTE_COMMAND]
    of_instance = {
        one["urn"]: [command for command in commands if command.get("deletedWith") == one["urn"]]
        for one in alive
        if one["type"] == INSTANCE
    }
    return Deployment(
        machines=[_machine(urn, steps) for urn, steps in of_instance.items() if steps],
        instances={one["id"]: _name(one) for one in alive if one["type"] == INSTANCE},
        groups={one["id"]: _name(one) for one in alive if one["type"] == GROUP},
        rules={one["id"]: _name(one) for one in alive if one["type"] in RULES.values()},
        provider=next(
            (_plain(one["inputs"]) for one in alive if one["type"] == "pulumi:providers:aws"),
            cast(dict[str, Any], {}),
        ),
        secrets=frozenset(secret for command in commands for secret in _secrets(command["inputs"])),
    )


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]


def _machine(urn: str, commands: Sequence[Mapping[str, Any]]) -> Machine:
    inputs = [_plain(command["inputs"]) for command in commands]
    steps = [Step(command["urn"], _script(given)) for command, given in zip(commands, inputs, strict=True)]
    texts = {step.script: str(given.get("stdin")) for step, given in zip(steps, inputs, strict=True)}
    deployed = texts.get("install-scripts.sh", "")
    keeping = {"install-scripts.sh", *_keeping(deployed)}
    if "apply-haproxy-config.sh" in texts:
        deployed += f"=== haproxy.cfg\n{texts['apply-haproxy-config.sh']}"
    connection = inputs[0]["connection"]
    return Machine(
        urn=urn,
        connection=Connection(
            host=connection["host"],
            port=int(connection.get("port") or 22),
            user=connection["user"],
            private_key=connection["privateKey"],
            host_key=connection["hostKey"],
        ),
        jumped=bool(connection.get("proxy")),
        steps=[step for step in steps if step.script in keeping],
        deployed=deployed,
    )


def _script(inputs: Mapping[str, Any]) -> str:
    # It comes as text, not as a file of the machine: it is what brings the files.
    if str(inputs.get("stdin")).startswith("=== "):
        return "install-scripts.sh"
    return script_of(inputs)[0]


def _keeping(deployed: str) -> Iterator[str]:
    """The scripts that keep a record of what they did."""
    for text in re.split(r"(?m)^=== ", deployed)[1:]:
        name, _, body = text.partition("\n")
        if re.search(r"(?m)^[^#\n]*\bkeep( <<|$)", body) and name != "prelude.sh":
            yield name


def find_drift_script(machine: Machine) -> str | None:
    """As it was deployed; `None` where that was before there was one."""
    found = re.search(r"(?ms)^=== find-drift\.sh\n(.*?)(?=^=== |\Z)", machine.deployed)
    return found[1] if found else None


def _plain(value: Any) -> Any:
    """Without the marks around secrets."""
    match value:
        case {"plaintext": str(text)} if _SECRET_MARK in value:
            return _plain(json.loads(text))
        case dict():
            return {key: _plain(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            return [_plain(item) for item in cast(list[Any], value)]
        case _:
            return value


def _secrets(inputs: Mapping[str, Any]) -> Iterator[str]:
    """What a command is given in secret, line by line; of how it logs in the key alone."""
    texts = [str(_plain(inputs.get("connection") or {}).get("privateKey", ""))]
    if isinstance(inputs.get("stdin"), dict):
        texts.append(str(_plain(inputs["stdin"])))
    for line in "\n".join(texts).splitlines():
        yield line
        if "://" in line and (password := urlsplit(line).password):
            yield password


# The cloud


def read_cloud(text: str) -> list[Difference]:
    """Of `pulumi refresh --preview-only --json`: what differs in what the program asked for."""
    found: list[Difference] = []
    for step in json.loads(text).get("steps", []):
        old, new = _inputs(step.get("oldState")), _inputs(step.get("newState"))
        _, _, types, name = step["urn"].split("::", 3)
        kind = spelled(types.rpartition("$")[2])
        if step["op"] == "delete":
            found.append(Difference(CLOUD, name, f"{kind}, deleted", _diff(old, {})))
        elif step["op"] == "update" and not _is_ignored(old, new):
            lines = _diff(old, new) or ["what is secret, or the order of a list"]
            found.append(Difference(CLOUD, name, f"{kind}, changed", lines))
    return sorted(found, key=lambda one: one.name)


def _inputs(resource: Mapping[str, Any] | None) -> dict[str, Any]:
    inputs: dict[str, Any] = (resource or {}).get("inputs", {})
    return {key: value for key, value in inputs.items() if key != "__defaults"}


def _is_ignored(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether it is another only in that; a secret that is another looks the same."""
    places = differing(dict(leaves("", old)), dict(leaves("", new)))
    return bool(places) and all(place.startswith(IGNORED) for place in places)


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    texts = (yaml.safe_dump(_sorted(one), width=500) if one else "" for one in (old, new))
    return [without_typed_secrets(line) for line in line_diff(*texts)]


def _sorted(value: Any) -> Any:
    """Most lists at AWS are sets, which it gives in any order."""
    match value:
        case dict():
            return {key: _sorted(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            return sorted(
                map(_sorted, cast(list[Any], value)), key=lambda one: json.dumps(one, sort_keys=True)
            )
        case _:
            return value


def away(deployment: Deployment, described: Iterable[Mapping[str, Any]]) -> tuple[set[str], list[Difference]]:
    """Of `DescribeInstances` for the stack's: which do not run, and those that were stopped."""
    states = {
        str(one["InstanceId"]): str(one["State"]["Name"])
        for reservation in described
        for one in reservation["Instances"]
    }
    stopped = [
        Difference(
            CLOUD,
            deployment.instances[id],
            f"Instance, {state}",
            [
                "-running",
                f"+{state}",
                "No update starts it, and one fails at it after minutes. Before the next:",
                f"aws ec2 start-instances --instance-ids {id}",
            ],
            healed=False,
        )
        for id, state in states.items()
        if state in ("stopping", "stopped")
    ]
    return {name for id, name in deployment.instances.items() if states.get(id) != "running"}, stopped


def added_rules(
    deployment: Deployment, described: Iterable[Mapping[str, Any]]
) -> tuple[list[AddedRule], list[Difference]]:
    """Of `DescribeSecurityGroupRules` for the stack's groups those that the program has not."""
    rules: list[AddedRule] = []
    found: list[Difference] = []
    for rule in described:
        id = str(rule["SecurityGroupRuleId"])
        known = deployment.rules.get(id)
        if known is not None and not known.startswith(BY_HAND):
            continue
        egress = bool(rule["IsEgress"])
        group = deployment.groups[rule["GroupId"]]
        ports = {
            name: rule[name] for name in ("FromPort", "ToPort") if rule["IpProtocol"] != "-1" and name in rule
        }
        ends = {
            name: rule[name]
            for name in ("CidrIpv4", "CidrIpv6", "PrefixListId", "Description")
            if name in rule
        }
        if "ReferencedGroupInfo" in rule:
            ends["ReferencedGroupId"] = rule["ReferencedGroupInfo"]["GroupId"]
        lines = _diff({}, {"IpProtocol": rule["IpProtocol"], "SecurityGroup": group, **ports, **ends})
        name = f"{BY_HAND}{'-'.join(str(part) for part in (rule['IpProtocol'], *ports.values()))}-{id}"
        rules.append(AddedRule(id, egress, name, imported=known is not None))
        found.append(Difference(CLOUD, name, f"{spelled(RULES[egress])}, added by hand", lines))
    return rules, found


# The machines


def read_machine(machine: Machine, output: str) -> list[Difference]:
    """Of what find-drift.sh prints on it."""
    blocks = re.split(r"(?m)^=== (\S+)\n", output)[1:]
    steps = {step.script: step for step in machine.steps}
    return [
        Difference(
            machine.name,
            steps[script].name,
            script,
            [without_typed_secrets(line) for line in lines.splitlines()],
            tuple(steps[name].urn for name in (script, *_ALSO.get(script, ())) if name in steps),
        )
        for script, lines in zip(blocks[::2], blocks[1::2], strict=True)
    ]


_ALSO = {"deploy-certificate.sh": ("restore-certificate.sh",)}
"""Does the same and comes before HAProxy is made to read its files, in which no broken PEM must be then."""


# Secrets

# Not in ARNs, IAM's actions and EC2's httpTokens, which tell what was changed.
_KEYS = r"pass(?:word|wd|phrase)|pwd|requirepass|masterauth|(?:api|access|private)[_-]?key|authorization|bearer|credential|(?<!http)token|(?<!:)secret(?!smanager)"
_SHOWN = r"arn:|(?:contents as deployed|other contents), not shown$"
_TYPED = re.compile(
    rf"""(?i)((?:{_KEYS})[\w-]*["']?(?:[ \t]*[:=]|[ \t])[ \t"']*+|\bauth[ \t]+[^\s:]+:)(?!{_SHOWN})\S.*"""
)
_IN_URL = re.compile(r"://[^\s/]*@")


def without_typed_secrets(line: str) -> str:
    """Of a diff: what somebody wrote into a file by hand is in no state."""
    return _TYPED.sub(rf"\1{_HIDDEN}", _IN_URL.sub(f"://{_HIDDEN}@", line))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    # A secret may hold another one.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 6:
            text = text.replace(secret, _HIDDEN)
    return text
