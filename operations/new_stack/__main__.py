"""Make a stack, or complete one: its keys and passwords as encrypted configuration, and the tags that tell it apart.

What is there already is never changed, so it may be run again at any time.
"""

import argparse
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.settings.model import NAMESPACE, REQUIRED_FROM_USER
from cluster.settings.stack_checks import format_tag_path
from operations import stack_file
from operations.engine import ROOT, pulumi


def ssh_private_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def password() -> str:
    return secrets.token_hex(20)


GENERATED: Mapping[str, Callable[[], str]] = {
    "sshPrivateKey": ssh_private_key,
    "sshHostKeySeed": lambda: secrets.token_hex(32),
    "databasePassword": password,
    "statisticsPassword": password,
    "panelPassword": password,
}


def read_configuration(stack: str) -> dict[str, Any]:
    """The stack's values by key, the project's own without namespace; a secret is True."""
    entries = json.loads(pulumi("config", "--json", "--stack", stack))
    return {
        key.removeprefix(f"{NAMESPACE}:"): entry["secret"] or entry.get("objectValue", entry.get("value"))
        for key, entry in entries.items()
    }


def is_set(configuration: Mapping[str, Any], key: str) -> bool:
    value: Any = configuration
    for name in key.split("."):
        if value is True:  # Pulumi tells nothing of an object in which something is a secret
            return True
        value = value.get(name) if value else None
    return bool(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stack", help="the stack's name, such as dev")
    stack: str = parser.parse_args().stack

    # A new stack's state is encrypted as its settings say only if pulumi is told so.
    provider = stack_file.read(ROOT / f"Pulumi.{stack}.yaml").get("secretsprovider", "default")
    pulumi("stack", "select", "--create", "--secrets-provider", provider, stack)
    configuration = read_configuration(stack)
    for key, generate in GENERATED.items():
        if not is_set(configuration, key):
            pulumi("config", "set", "--secret", "--stack", stack, f"{NAMESPACE}:{key}", stdin=generate())
            print(f"generated {key}")
    for tag, value in (("project", NAMESPACE), ("stack", stack)):
        if not is_set(configuration, key := format_tag_path(tag)):
            pulumi("config", "set", "--stack", stack, "--path", key, value)
            print(f"tagged {tag}={value}")

    missing = [
        command
        for key, command in REQUIRED_FROM_USER.items()
        if not is_set(configuration, key)
        # Who brings a certificate asks no certificate authority for one.
        and not (key == "acme.email" and is_set(configuration, "tls"))
    ]
    if missing:
        print(f"Stack {stack} is ready but for what only you know:")
        for command in missing:
            print(f"  {command}")
    else:
        print(f"Stack {stack} is ready: pulumi up")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"new_stack.py needs {error.filename} on PATH.")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
