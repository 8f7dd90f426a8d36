"""The scripts under templates/scripts: a folder for each kind of machine, and one for what every machine has."""

import base64
import bz2
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from hashlib import sha256
from pathlib import Path

_REPOSITORY = Path(__file__).parent.parent
_FOLDER = _REPOSITORY / "templates" / "scripts"
INSTALLED_SCRIPTS = "/usr/local/lib/ant-media-cluster"
"""The folder of the scripts on a machine."""


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
def pack_scripts(folder: ScriptFolder) -> str:
    """Returns all scripts that a kind of machine has, as install-scripts.sh reads them."""
    paths = sorted(_list_scripts(folder), key=lambda path: path.name)
    return pack({path.name: path.read_text() for path in paths})


def pack(scripts: Mapping[str, str]) -> str:
    """Returns a line `=== NAME VERSION` for each script, and then the compressed bundle on one line.

    The bundle has each script after a line `=== NAME`.

    The state has it twice for each machine, and Pulumi writes the whole state after each step. The versions name in previews
    what changes. Every build of bzip2 compresses a text to the same bytes. Those of zlib do not, so scripts would run again.
    """
    versions = [f"=== {name} {short_digest(text)}\n" for name, text in scripts.items()]
    bundle = "".join(f"=== {name}\n{text}" for name, text in scripts.items())
    packed = base64.b64encode(bz2.compress(bundle.encode())).decode()
    return "".join([*versions, packed, "\n"])


BEGIN_OF_PACKED = base64.b64encode(b"BZh").decode()


def unpack_scripts(stdin: str) -> str:
    """Returns the bundle in the standard input of install-scripts.sh, and that of other scripts as it is.

    Releases before the compressed bundle sent it as it is, too.
    """
    packed = stdin.rstrip("\n").rpartition("\n")[2]
    if not stdin.startswith("=== ") or not packed.startswith(BEGIN_OF_PACKED):
        return stdin
    return bz2.decompress(base64.b64decode(packed)).decode()


def short_digest(text: str) -> str:
    """Returns the first 12 hexadecimal digits of the text's SHA-256. As an argument, it runs a script again when the text changes."""
    return sha256(text.encode()).hexdigest()[:12]


def _list_scripts(folder: ScriptFolder) -> Iterator[Path]:
    also = [ScriptFolder.REGISTRY] if folder == ScriptFolder.BALANCER else []
    for name in (ScriptFolder.EVERY_MACHINE, *also, folder):
        yield from (path for path in (_FOLDER / name).iterdir() if path.suffix in (".sh", ".py"))
