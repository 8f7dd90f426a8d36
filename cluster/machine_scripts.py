"""The scripts under templates/scripts: a folder for each kind of machine, and one for what every machine has."""

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

_REPOSITORY = Path(__file__).parent.parent
_FOLDER = _REPOSITORY / "templates" / "scripts"


class ScriptFolder(StrEnum):
    """A folder of templates/scripts, named after what runs its scripts."""

    EVERY_MACHINE = "every-machine"
    REGISTRY = "registry"
    """Of the database, and of the load balancer, which has its standby."""
    BALANCER = "balancer"
    NODE = "node"
    OPERATOR = "operator"


@cache
def read_script(folder: ScriptFolder, name: str) -> str:
    """Returns the text of a script that the machines of a folder have."""
    return next(path for path in _list_scripts(folder) if path.name == name).read_text()


def read_hook(path: str) -> str:
    """Returns the text of the user's script at a path in the repository."""
    return (_REPOSITORY / path).read_text()


def find_hook_problem(path: str) -> str | None:
    """Returns why the user's script cannot run on a machine, and the remedy. None if it can."""
    try:
        text = read_hook(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        return f"this file cannot be read ({reason}): give the path of a script in this repository"
    if not text.startswith("#!"):
        return "the script has no interpreter: begin its first line with #!, such as #!/usr/bin/env bash"
    return None


@cache
def bundle_scripts(folder: ScriptFolder) -> str:
    """Returns all scripts that a kind of machine has, as install-scripts.sh reads them: each after a line `=== NAME`."""
    paths = sorted(_list_scripts(folder), key=lambda path: path.name)
    return "".join(f"=== {path.name}\n{path.read_text()}" for path in paths)


def _list_scripts(folder: ScriptFolder) -> Iterator[Path]:
    also = [ScriptFolder.REGISTRY] if folder == ScriptFolder.BALANCER else []
    for name in (ScriptFolder.EVERY_MACHINE, *also, folder):
        yield from (path for path in (_FOLDER / name).iterdir() if path.suffix in (".sh", ".py"))
