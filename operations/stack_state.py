"""Reads machines, steps, SSH connections and security groups from a stack's exported state."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from cluster.machine_scripts import unpack_scripts
from operations.resources import INSTANCE, REMOTE_COMMAND, parse_script

SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
RULE_TYPES = {
    False: "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    True: "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
}
"""The resource types of security group rules. The key is True for egress."""

# Marks a secret value in an exported state.
_SECRET_MARK = "4dabf18193072939515e22adb298388d"


@dataclass(frozen=True)
class Connection:
    """The command provider's SSH connection to a machine."""

    host: str
    port: int
    user: str
    private_key: str = field(repr=False)
    host_key: str


@dataclass(frozen=True)
class Step:
    """A remote command that runs a script of templates/scripts on a machine."""

    urn: str
    script: str

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]


@dataclass(frozen=True)
class Machine:
    """A machine on which steps have run."""

    urn: str
    """URN of its instance."""
    connection: Connection
    behind_balancer: bool
    """True if SSH reaches it through the load balancer."""
    steps: Sequence[Step]
    """The steps whose scripts record what they did."""
    deployed_files: str
    """Standard input of find-drift.sh: the deployed scripts, and haproxy.cfg on the load balancer."""

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def find_drift_script(self) -> str | None:
        """The deployed find-drift.sh, or None if the deployment is older than that script."""
        found = re.search(r"(?ms)^=== find-drift\.sh\n(.*?)(?=^=== |\Z)", self.deployed_files)
        return found[1] if found else None


@dataclass(frozen=True)
class StackState:
    """What the drift check and `make status` need of a stack's state."""

    machines: Sequence[Machine]
    instances: Mapping[str, str]
    """Names of the instances by their ids."""
    security_groups: Mapping[str, str]
    """Names of the security groups by their ids."""
    rules: Mapping[str, str]
    """Names of the security group rules by their ids."""
    provider: Mapping[str, Any] = field(repr=False)
    """Inputs of the AWS provider."""
    secrets: frozenset[str] = field(repr=False)

    @property
    def stack(self) -> str:
        return self.machines[0].urn.split(":")[2]


def read_stack_state(exported: str) -> StackState:
    """Reads the output of `pulumi stack export --show-secrets`."""
    all_resources: list[dict[str, Any]] = json.loads(exported)["deployment"].get("resources", [])
    resources = [resource for resource in all_resources if not resource.get("delete")]
    commands = [resource for resource in resources if resource["type"] == REMOTE_COMMAND]

    def names_by_id(*types: str) -> dict[str, str]:
        return {
            resource["id"]: str(resource["urn"]).rpartition("::")[2]
            for resource in resources
            if resource["type"] in types
        }

    commands_by_instance = {
        resource["urn"]: [command for command in commands if command.get("deletedWith") == resource["urn"]]
        for resource in resources
        if resource["type"] == INSTANCE
    }
    return StackState(
        machines=[_read_machine(urn, own) for urn, own in commands_by_instance.items() if own],
        instances=names_by_id(INSTANCE),
        security_groups=names_by_id(SECURITY_GROUP),
        rules=names_by_id(*RULE_TYPES.values()),
        provider=next(
            (_decrypt(one["inputs"]) for one in resources if one["type"] == "pulumi:providers:aws"),
            cast(dict[str, Any], {}),
        ),
        secrets=frozenset(secret for command in commands for secret in _secrets(command["inputs"])),
    )


def _read_machine(urn: str, commands: Sequence[Mapping[str, Any]]) -> Machine:
    inputs = [_decrypt(command["inputs"]) for command in commands]
    steps = [Step(command["urn"], _script_name(own)) for command, own in zip(commands, inputs, strict=True)]
    stdin = {step.script: str(own.get("stdin")) for step, own in zip(steps, inputs, strict=True)}
    deployed_files = unpack_scripts(stdin.get("install-scripts.sh", ""))
    recording = {"install-scripts.sh", *_recording_scripts(deployed_files)}
    if "apply-haproxy-config.sh" in stdin:
        deployed_files += f"=== haproxy.cfg\n{stdin['apply-haproxy-config.sh']}"
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
        behind_balancer=bool(connection.get("proxy")),
        steps=[step for step in steps if step.script in recording],
        deployed_files=deployed_files,
    )


def _script_name(inputs: Mapping[str, Any]) -> str:
    # install-scripts.sh is passed as text, because it is what installs the other scripts.
    if str(inputs.get("stdin")).startswith("=== "):
        return "install-scripts.sh"
    return parse_script(inputs)[0]


def _recording_scripts(deployed_files: str) -> Iterator[str]:
    """Yields the names of the scripts that record what they did."""
    for text in re.split(r"(?m)^=== ", deployed_files)[1:]:
        name, _, body = text.partition("\n")
        if re.search(r"(?m)^[^#\n]*\bsave_record( <<|$)", body) and name != "prelude.sh":
            yield name


def _decrypt(value: Any) -> Any:
    """Replaces the state's secret objects by their plain values."""
    match value:
        case {"plaintext": str(text)} if _SECRET_MARK in value:
            return _decrypt(json.loads(text))
        case dict():
            return {key: _decrypt(member) for key, member in cast(dict[str, Any], value).items()}
        case list():
            return [_decrypt(item) for item in cast(list[Any], value)]
        case _:
            return value


def _secrets(inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a command's SSH key and secret input, and the passwords of URLs in them."""
    texts = [str(_decrypt(inputs.get("connection") or {}).get("privateKey", ""))]
    if isinstance(inputs.get("stdin"), dict):
        texts.append(str(_decrypt(inputs["stdin"])))
    for line in "\n".join(texts).splitlines():
        yield line
        if "://" in line and (password := urlsplit(line).password):
            yield password
