"""A stack's settings file, Pulumi.NAME.yaml, and the secrets in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

# What only this stack's own secrets can be decrypted with.
_KEYS = ("encryptionsalt", "encryptedkey")


def read(path: Path) -> dict[str, Any]:
    """The settings, empty where there is no such file."""
    return cast(dict[str, Any], yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def write(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without what is encrypted, nor that by which it is."""
    bare = {key: value for key, value in settings.items() if key not in _KEYS}
    return {**bare, "config": _bare(settings.get("config", {}))}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: _bare(inner) for key, inner in items if not _is_secret(inner)}
    if isinstance(value, list):
        return [_bare(inner) for inner in cast(list[Any], value) if not _is_secret(inner)]
    return value


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and "secure" in value


def with_secrets_of(before: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, completed by the encrypted ones of ``before`` and that by which they are."""
    secrets = {key: value for key, value in before.get("config", {}).items() if _is_secret(value)}
    keys = {key: before[key] for key in _KEYS if key in before}
    return {**settings, **keys, "config": {**secrets, **settings.get("config", {})}}
