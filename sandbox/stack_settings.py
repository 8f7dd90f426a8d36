"""Writes a sandbox stack's settings: those of the checkout, with the secrets that this sandbox generated before, and its
certificate authority's root as acme.root, which is another each time the local cloud starts.

usage: stack_settings.py FROM TO ROOTS
"""

import sys
from pathlib import Path
from typing import Any, cast

import yaml

ACME = "ant-media-cluster:acme"


def merged(checkout: dict[str, Any], before: dict[str, Any], roots: str) -> dict[str, Any]:
    """The checkout's settings, completed by the encrypted ones of ``before`` and the salt they were encrypted with."""
    secrets = {
        key: value
        for key, value in before.get("config", {}).items()
        if isinstance(value, dict) and "secure" in value
    }
    salt = {key: before[key] for key in ("encryptionsalt",) if key in before}
    config = {**secrets, **checkout.get("config", {})}
    if ACME in config:
        config[ACME] = {"root": roots, **config[ACME]}
    return {**checkout, **salt, "config": config}


def read(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load(path.read_text())) if path.exists() else {}


if __name__ == "__main__":
    source, target, roots = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    settings = merged(read(source), read(target), roots.read_text())
    target.write_text(yaml.safe_dump(settings, sort_keys=False))
