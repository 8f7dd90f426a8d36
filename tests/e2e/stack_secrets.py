"""The stack's secrets, and a search for them in texts and files."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.derived_keys import derive_key_pair, derive_password
from cluster.settings.model import SECRETS
from tests.e2e.running_cluster import Cluster


def list_secret_texts(cluster: Cluster) -> dict[str, list[bytes]]:
    """Returns the revealing lines of each secret by name: one line of a private key counts as a leak."""
    entries = json.loads(cluster.pulumi("config", "--show-secrets", "--json").check())
    found = {
        key: str(entry["value"])
        for key in SECRETS
        if (entry := entries[f"ant-media-cluster:{key}"]).get("secret") and entry["value"]
    }
    found |= {
        f"host key of {name}": derive_key_pair(found["sshHostKeySeed"], name).private_openssh
        for name in cluster.list_machines()
    }
    found |= {
        f"secret {purpose}": derive_password(found["sshHostKeySeed"], purpose)
        for purpose in ("replication", "shared by nodes")
    }
    # The panel logs in with the MD5 of the password, so the MD5 grants the same access.
    found["MD5 of panelPassword"] = hashlib.md5(found["panelPassword"].encode()).hexdigest()
    return {name: list(_list_revealing_lines(text)) for name, text in found.items()}


def _list_revealing_lines(text: str) -> Iterable[bytes]:
    lines = [line for line in text.splitlines() if not line.startswith("-----")]
    # The first lines of a key file are the same in all key files, or public.
    return (line.encode() for line in (lines[2:] if len(lines) > 1 else lines))


def find_leaks(texts: Mapping[str, bytes], secrets: Mapping[str, list[bytes]]) -> list[str]:
    """Returns which secret appears in which text."""
    return [
        f"{secret} in {place}"
        for place, text in texts.items()
        for secret, lines in secrets.items()
        if any(line in text for line in lines)
    ]


def read_files(*folders: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
