"""Reads and writes a stack's settings file, Pulumi.NAME.yaml, and the encrypted secrets in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from cluster.settings.model import NAMESPACE
from operations.command_line import new_parser, run_command

# The keys that Pulumi encrypts and decrypts the stack's secrets with.
_ENCRYPTION_KEYS = ("encryptionsalt", "encryptedkey")


def read(path: Path) -> dict[str, Any]:
    """Returns the settings, or an empty dictionary if the file does not exist."""
    return cast(dict[str, Any], yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def write(path: Path, settings: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings without encrypted values and without the keys that decrypt them."""
    plain = {key: value for key, value in settings.items() if key not in _ENCRYPTION_KEYS}
    return {**plain, "config": _drop_secrets(settings.get("config", {}))}


def _drop_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {key: _drop_secrets(inner) for key, inner in items if not _is_secret(inner)}
    if isinstance(value, list):
        return [_drop_secrets(inner) for inner in cast(list[Any], value) if not _is_secret(inner)]
    return value


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and "secure" in value


def add_secrets(settings: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with the encrypted values of `source` and the keys that decrypt them.

    Values that the settings have themselves take precedence. Secrets inside an object are added if the settings have the object.
    """
    keys = {key: source[key] for key in _ENCRYPTION_KEYS if key in source}
    return {
        **settings,
        **keys,
        "config": _merge_secrets(settings.get("config", {}), source.get("config", {})),
    }


def _merge_secrets(settings: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    secrets = {key: value for key, value in source.items() if _is_secret(value)}
    inner = {
        key: _merge_secrets(value, source[key])
        for key, value in settings.items()
        if _is_object(value) and _is_object(source.get(key))
    }
    return {**secrets, **settings, **inner}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_secret(value)


def add_acme_root(settings: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Returns the settings with `acme.root`, where they have `acme` without a root."""
    config = settings.get("config", {})
    key = f"{NAMESPACE}:acme"
    acme = {key: {"root": root, **config[key]}} if key in config else {}
    return {**settings, "config": {**config, **acme}}


def main() -> None:
    parser = new_parser(
        "operations.stack_file",
        "Writes a stack's settings file.",
        {0: "the file was written", 1: "a file could not be read or written"},
    )
    merge = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "merge",
        help="write the settings of one file to another, whose secrets stay",
        description="Writes the settings of SOURCE to TARGET and keeps the secrets that TARGET has.",
    )
    merge.add_argument("source", metavar="SOURCE", type=Path, help="the file to read settings from")
    merge.add_argument(
        "target", metavar="TARGET", type=Path, help="the file to write; created if it does not exist"
    )
    merge.add_argument(
        "--acme-root",
        metavar="FILE",
        type=Path,
        required=True,
        help="PEM file with the root certificate of the ACME server; becomes acme.root unless SOURCE sets it",
    )
    arguments = parser.parse_args()
    settings = add_secrets(read(arguments.source), read(arguments.target))
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    write(arguments.target, add_acme_root(settings, arguments.acme_root.read_text()))


if __name__ == "__main__":
    run_command(main)
