"""Writes a sandbox stack's settings: those of the checkout, with the secrets that this sandbox generated before.

usage: stack_settings.py FROM TO
"""

import sys
from pathlib import Path
from typing import Any, cast

import yaml


def merged(checkout: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The checkout's settings, completed by the encrypted ones of ``before`` and the salt they were encrypted with."""
    secrets = {
        key: value
        for key, value in before.get("config", {}).items()
        if isinstance(value, dict) and "secure" in value
    }
    salt = {key: before[key] for key in ("encryptionsalt",) if key in before}
    return {**checkout, **salt, "config": {**secrets, **checkout.get("config", {})}}


def read(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load(path.read_text())) if path.exists() else {}


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(merged(read(source), read(target)), sort_keys=False))
