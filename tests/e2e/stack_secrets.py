"""Every text that nobody but the stack's owner may see, and where somebody else might."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.host_keys import host_key
from cluster.settings.model import SECRETS
from tests.e2e.running_cluster import Cluster


def stack_secrets(cluster: Cluster) -> dict[str, list[bytes]]:
    """By name, each secret as the texts that give it away: a key that spans lines is as lost by one of them."""
    entries = json.loads(cluster.must("sandbox/bin/pulumi", "config", "--show-secrets", "--json"))
    found = {
        key: str(entry["value"])
        for key in SECRETS
        if (entry := entries[f"ant-media-cluster:{key}"]).get("secret") and entry["value"]
    }
    found |= {
        f"host key of {name}": host_key(found["sshHostKeySeed"], name).private_openssh
        for name in cluster.machines()
    }
    # The server takes what its panel sends, so this opens the panel as well as the password does.
    found["MD5 of panelPassword"] = hashlib.md5(found["panelPassword"].encode()).hexdigest()
    return {name: list(_telling_lines(text)) for name, text in found.items()}


def _telling_lines(text: str) -> Iterable[bytes]:
    lines = [line for line in text.splitlines() if not line.startswith("-----")]
    # The first line and a half of a key's file are alike in all of them, or public.
    return (line.encode() for line in (lines[2:] if len(lines) > 1 else lines))


def found_in(texts: Mapping[str, bytes], secrets: Mapping[str, list[bytes]]) -> list[str]:
    """Which secret shows where."""
    return [
        f"{secret} in {place}"
        for place, text in texts.items()
        for secret, lines in secrets.items()
        if any(line in text for line in lines)
    ]


def files_below(*folders: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
