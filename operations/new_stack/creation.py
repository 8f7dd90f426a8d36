"""Creates a stack with its generated secrets and its default tags."""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.settings.model import NAMESPACE, REQUIRED_FROM_USER
from cluster.settings.stack_checks import format_tag_path
from operations import stack_file
from operations.engine import ROOT, run_pulumi


def generate_ssh_private_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def _generate_password() -> str:
    return secrets.token_hex(20)


_GENERATORS: Mapping[str, Callable[[], str]] = {
    "sshPrivateKey": generate_ssh_private_key,
    "sshHostKeySeed": lambda: secrets.token_hex(32),
    "databasePassword": _generate_password,
    "statisticsPassword": _generate_password,
    "panelPassword": _generate_password,
}


def create_stack(stack: str) -> None:
    """Creates the stack if it does not exist, and sets the secrets and tags that it lacks. Prints what it sets."""
    # For a new stack, Pulumi reads the secrets provider from this option, not from the settings file.
    provider = stack_file.read(ROOT / f"Pulumi.{stack}.yaml").get("secretsprovider", "default")
    run_pulumi("stack", "select", "--create", "--secrets-provider", provider, stack)
    configuration = _read_configuration(stack)
    for key, generate in _GENERATORS.items():
        if not _is_set(configuration, key):
            run_pulumi("config", "set", "--secret", "--stack", stack, f"{NAMESPACE}:{key}", stdin=generate())
            print(f"generated {key}")
    for tag, value in (("project", NAMESPACE), ("stack", stack)):
        if not _is_set(configuration, key := format_tag_path(tag)):
            run_pulumi("config", "set", "--stack", stack, "--path", key, value)
            print(f"tagged {tag}={value}")


def find_missing_settings(stack: str) -> list[str]:
    """Returns the commands that set the settings which only the user knows, and which the stack lacks."""
    configuration = _read_configuration(stack)
    return [
        command
        for key, command in REQUIRED_FROM_USER.items()
        if not _is_set(configuration, key)
        # A stack with its own certificate needs no ACME account.
        and not (key == "acme.email" and _is_set(configuration, "tls"))
    ]


def _read_configuration(stack: str) -> dict[str, Any]:
    """Returns the stack's values by key, without this project's namespace. The value of a secret is `True`."""
    entries = json.loads(run_pulumi("config", "--json", "--stack", stack))
    return {
        key.removeprefix(f"{NAMESPACE}:"): entry["secret"] or entry.get("objectValue", entry.get("value"))
        for key, entry in entries.items()
    }


def _is_set(configuration: Mapping[str, Any], path: str) -> bool:
    value: Any = configuration
    for key in path.split("."):
        if value is True:  # Pulumi does not print an object that contains a secret
            return True
        value = value.get(key) if value else None
    return bool(value)
