"""Selects the server of the sandbox's nodes: the stand-in, or a real Ant Media Server from the archive in AMS_ZIP.

`sandbox/bin/up` and `sandbox/bin/pulumi` run this module. The selection is recorded in the state folder, and
stays until another one is requested or `make down` deletes the folder.
"""

import argparse
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from sandbox.cloud import host

Edition = Literal["Community", "Enterprise"]

STAND_IN = "stand-in"
"""The value of AMS_ZIP that selects the stand-in."""

RECORD = host.STATE / "media-server.json"
PROJECT_FILE = host.SANDBOX.parent / "Pulumi.yaml"
NAMESPACE = "ant-media-cluster"

_UNIT = "ant-media-server/antmedia.service"
_CLUSTER_CLASS = "io/antmedia/enterprise/cluster/TcpCluster.class"
"""Cluster mode needs this class. Only the Enterprise Edition contains it."""

APPLICATIONS: Mapping[Edition, Sequence[str]] = {
    "Community": ("LiveApp", "live", "WebRTCApp"),
    "Enterprise": ("LiveApp", "WebRTCAppEE", "live"),
}
"""The applications that each edition installs."""


@dataclass(frozen=True)
class Archive:
    """An ant-media-server-….zip."""

    path: Path
    sha256: str
    edition: Edition

    def __str__(self) -> str:
        return f"{self.path} ({self.edition} Edition)"

    def is_unchanged(self) -> bool:
        """True if the file still has the content that was selected."""
        return self.path.is_file() and _digest(self.path) == self.sha256


def read_archive(path: Path) -> Archive:
    """Reads the edition from the server's jars. Exits if the file is not an archive of Ant Media Server."""
    if not path.is_file():
        sys.exit(
            f"AMS_ZIP={path}: the file does not exist; give the path of an ant-media-server-….zip, or AMS_ZIP={STAND_IN}."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if _UNIT in names:
                return Archive(path, _digest(path), _read_edition(archive))
    except zipfile.BadZipFile:
        pass
    sys.exit(
        f"AMS_ZIP={path}: not an archive of Ant Media Server: it does not contain {_UNIT};"
        f" give the path of an ant-media-server-….zip, or AMS_ZIP={STAND_IN}."
    )


def _read_edition(archive: zipfile.ZipFile) -> Edition:
    jars = [name for name in archive.namelist() if name.endswith(".jar")]
    # The class is in one of Ant Media's own jars: these first, which saves reading all the others.
    for name in sorted(jars, key=lambda name: "ant-media" not in name.rpartition("/")[2]):
        try:
            with zipfile.ZipFile(io.BytesIO(archive.read(name))) as jar:
                if _CLUSTER_CLASS in jar.namelist():
                    return "Enterprise"
        except zipfile.BadZipFile:
            continue
    return "Community"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(text: str) -> Archive | None:
    fields = json.loads(text)
    return Archive(Path(fields["path"]), fields["sha256"], fields["edition"]) if fields else None


def _encode(server: Archive | None) -> str:
    return json.dumps(asdict(server) if server else None, default=str)


def read_selection() -> Archive | None:
    """Returns the recorded archive, or None for the stand-in."""
    return _decode(RECORD.read_text()) if RECORD.exists() else None


def select(ams_zip: str) -> Archive | None:
    """Returns the server that AMS_ZIP requests. An empty AMS_ZIP keeps the recorded one."""
    if not ams_zip:
        return read_selection()
    return None if ams_zip == STAND_IN else read_archive(Path(ams_zip).resolve())


def use(server: Archive | None, *, requested: bool, beside_others: bool) -> None:
    """Records the server. Stops a cloud that runs another one, whose machines cannot be kept.

    `beside_others` is true for a test cluster, which must not stop the clusters of others.
    """
    current = read_selection()
    changed = (server and server.sha256) != (current and current.sha256)
    if changed and host.BOOT_ID.exists():
        if beside_others:
            sys.exit(
                f"AMS_ZIP={server.path if server else STAND_IN}: the local cloud runs another Ant Media Server,"
                f" {_describe(current)}; leave out AMS_ZIP, or run make down first."
            )
        replacement = (
            f"{server.path} has changed"
            if server and current and server.path == current.path
            else f"{_describe(current)} -> {_describe(server)}"
        )
        print(f"==> Replacing the Ant Media Server of the sandbox: {replacement}")
        print(
            "    The local cloud restarts: users, settings and recordings of the nodes are deleted.",
            flush=True,
        )
        # The image is built first: if that fails, the present cloud continues to run.
        from sandbox.cloud.command_line import stop
        from sandbox.cloud.images import build_missing

        build_missing(server)
        stop()
    elif server and changed:
        print(f"==> Installing {server} instead of the stand-in")
    elif server and not requested:
        print(f"==> Keeping the Ant Media Server of the sandbox: {server}. AMS_ZIP={STAND_IN} removes it.")
        if server.path.is_file() and not server.is_unchanged():
            print(
                f"    The file has changed since it was installed: make up AMS_ZIP={server.path} installs it again."
            )
    host.STATE.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(f"{_encode(server)}\n")


def _describe(server: Archive | None) -> str:
    return str(server) if server else f"the {STAND_IN}"


def add_applications(server: Archive | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with the applications of the server's edition, unless the settings name applications."""
    key, config = f"{NAMESPACE}:applications", settings.get("config") or {}
    if server is None or config.get(key):
        return dict(settings)
    return {**settings, "config": {**config, key: list(APPLICATIONS[server.edition])}}


def find_cluster_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a remedy for each setting that makes a cluster of the stack.

    Reads the numbers of nodes from the first file, and `databaseUrl` from all.
    """
    configs = [cast(dict[str, Any], file.get("config") or {}) for file in settings]
    remedies = [
        f"{NAMESPACE}:{role}.count is {count}; set {NAMESPACE}:{role}: {{count: {limit}}} in Pulumi.sandbox.yaml."
        for role, limit in (("origins", 1), ("edges", 0))
        if (count := _count_nodes(configs[0], role)) > limit
    ]
    if any(config.get(f"{NAMESPACE}:databaseUrl") for config in configs):
        remedies.append(f"{NAMESPACE}:databaseUrl is set; run sandbox/bin/pulumi config rm databaseUrl.")
    return remedies


def _count_nodes(config: Mapping[str, Any], role: str) -> int:
    """Returns a number of nodes. A value that the program will refuse counts as 0."""
    default = yaml.safe_load(PROJECT_FILE.read_text())["config"][role]["default"]["count"]
    value = config.get(f"{NAMESPACE}:{role}") or {}
    try:
        nodes = json.loads(value) if isinstance(value, str) else value
        return int(nodes.get("count", default))
    except (AttributeError, TypeError, ValueError):
        return 0


def check(server: Archive | None, settings: Sequence[Mapping[str, Any]]) -> None:
    """Exits if the settings make a cluster and the server is the Community Edition."""
    if server is None or server.edition == "Enterprise":
        return
    if remedies := find_cluster_settings(settings):
        sys.exit(
            f"AMS_ZIP={server.path} is the Community Edition, which has no cluster mode (no jar contains"
            f" {_CLUSTER_CLASS}) and runs as a single node. Nothing was changed.\n"
            + "".join(f"  {remedy}\n" for remedy in remedies)
            + "  Or give the path of an Enterprise Edition."
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.cloud.media_server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("select", help="print the server that AMS_ZIP requests, as JSON")
    command.add_argument("ams_zip", metavar="AMS_ZIP")
    command = commands.add_parser("check", help="fail if the server cannot run with the settings")
    command.add_argument("--server", metavar="JSON", help="the server (default: the recorded one)")
    command.add_argument("files", metavar="SETTINGS", nargs="+", type=Path)
    command = commands.add_parser("settings", help="copy settings from standard input, with applications")
    command.add_argument("--server", metavar="JSON", help="the server (default: the recorded one)")
    command = commands.add_parser("use", help="record the server; stop a cloud that runs another one")
    command.add_argument("--server", metavar="JSON", required=True)
    command.add_argument("--requested", action="store_true", help="AMS_ZIP names the server")
    command.add_argument("--beside-others", action="store_true", help="for a test cluster")
    arguments = parser.parse_args()
    if arguments.command == "select":
        print(_encode(select(arguments.ams_zip)))
        return
    server = _decode(arguments.server) if arguments.server else read_selection()
    match arguments.command:
        case "check":
            check(
                server, [yaml.safe_load(file.read_text()) or {} for file in arguments.files if file.exists()]
            )
        case "settings":
            settings = yaml.safe_load(sys.stdin) or {}
            yaml.safe_dump(add_applications(server, settings), sys.stdout, sort_keys=False)
        case _:
            use(server, requested=arguments.requested, beside_others=arguments.beside_others)


if __name__ == "__main__":
    main()
