"""Writes a sandbox stack's settings: those of a file, with the secrets that this sandbox generated before, and its
certificate authority's root as acme.root, which is another each time the local cloud starts.

usage: stack_settings.py FROM TO ROOTS
"""

import sys
from pathlib import Path
from typing import Any

from operations import stack_file

ACME = "ant-media-cluster:acme"


def with_root(settings: dict[str, Any], roots: str) -> dict[str, Any]:
    config = settings.get("config", {})
    acme = {ACME: {"root": roots, **config[ACME]}} if ACME in config else {}
    return {**settings, "config": {**config, **acme}}


if __name__ == "__main__":
    source, target, roots = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    settings = stack_file.with_secrets_of(stack_file.read(target), stack_file.read(source))
    stack_file.write(target, with_root(settings, roots.read_text()))
