"""The scripts under templates/scripts: a folder for each kind of machine, and one for what every machine has."""

from enum import StrEnum
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "templates" / "scripts"


class ScriptFolder(StrEnum):
    """A folder of templates/scripts, named after the machine that runs its scripts."""

    EVERY_MACHINE = "every-machine"
    BALANCER = "balancer"
    NODE = "node"
    DATABASE = "database"
    OPERATOR = "operator"


def read_script(folder: ScriptFolder, name: str) -> str:
    """Returns the text of a script that a kind of machine has."""
    own, common = _FOLDER / folder / name, _FOLDER / ScriptFolder.EVERY_MACHINE / name
    return (own if own.exists() else common).read_text()


def bundle_scripts(folder: ScriptFolder) -> str:
    """Returns all scripts that a kind of machine has, as install-scripts.sh reads them: each after a line `=== NAME`."""
    paths = [
        path
        for name in (ScriptFolder.EVERY_MACHINE, folder)
        for path in (_FOLDER / name).iterdir()
        if path.suffix in (".sh", ".py")
    ]
    return "".join(
        f"=== {path.name}\n{path.read_text()}" for path in sorted(paths, key=lambda path: path.name)
    )
