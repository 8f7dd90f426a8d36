"""The host of the local cloud: its folders, its loopback address and the requirements that it must meet."""

import os
import platform
import shutil
from pathlib import Path

SANDBOX = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("SANDBOX_STATE") or "/var/lib/ant-media-sandbox").absolute()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ant-media-cluster"
LOOPBACK_ADDRESS = os.environ.get("SANDBOX_ADDRESS") or "127.77.0.1"

BOOT_ID = STATE / "boot_id"
"""Identifies one run of the cloud; exists when it is ready."""
STATUS = STATE / "status.json"
OPERATOR = STATE / "operator"
OPERATOR_FILES = {
    path: OPERATOR / path.name
    for path in (Path("/etc/resolv.conf"), Path("/etc/nsswitch.conf"))
    if path.exists()
}
"""Files that the operator's commands see instead of the host's: path → replacement."""

_TOOLS = {
    "curl": "curl",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "pebble": "pebble",
    "systemd-nspawn": "systemd-container",
}


def find_unmet_requirement() -> str | None:
    """Returns a message about the first requirement that this host does not meet, or None."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    family = {system.get("ID", ""), *system.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"}:
        return "the local cloud needs Debian 12 or newer, or Ubuntu 24.04 or newer: its machines are built with their tools"
    if os.geteuid() != 0:
        return "the local cloud needs root for network namespaces, mounts and containers: run it with sudo"
    missing = sorted(package for tool, package in _TOOLS.items() if shutil.which(tool) is None)
    if missing:
        return (
            f"the local cloud needs packages that are not installed: run apt-get install {' '.join(missing)}"
        )
    # Debian 13's archives are also signed with Debian 12's keys, the newest that Ubuntu 24.04 has.
    if not any(Path("/usr/share/keyrings").glob("debian-archive-bookworm-automatic.*")):
        return "the local cloud needs Debian's archive keys: run apt-get update && apt-get install debian-archive-keyring"
    return None
