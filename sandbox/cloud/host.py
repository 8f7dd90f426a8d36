"""What the machine under the local cloud is and must be, and where the cloud keeps its things on it."""

import os
import platform
import shutil
from pathlib import Path

SANDBOX = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("SANDBOX_STATE") or "/var/lib/ant-media-sandbox").absolute()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ant-media-cluster"
LOOPBACK_ADDRESS = os.environ.get("SANDBOX_ADDRESS") or "127.77.0.1"

_TOOLS = {
    "curl": "curl",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "pebble": "pebble",
    "systemd-nspawn": "systemd-container",
}


def complaint() -> str | None:
    """The one sentence that says why the local cloud cannot run here, or None when it can."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    family = {system.get("ID", ""), *system.get("ID_LIKE", "").split()}
    if not family & {"debian", "ubuntu"}:
        return "the local cloud needs Debian 12 or newer, or Ubuntu 24.04 or newer: it builds its machines with their tools"
    if os.geteuid() != 0:
        return "the local cloud needs root, for network namespaces, mounts and machines of its own: run it with sudo"
    missing = sorted(package for tool, package in _TOOLS.items() if shutil.which(tool) is None)
    if missing:
        return f"the local cloud needs packages that are not installed: apt-get install {' '.join(missing)}"
    # Debian 13's archives are signed with the keys of Debian 12 as well, which is all that Ubuntu 24.04 has.
    if not any(Path("/usr/share/keyrings").glob("debian-archive-bookworm-automatic.*")):
        return "the local cloud needs Debian's keys: apt-get update && apt-get install debian-archive-keyring"
    return None
