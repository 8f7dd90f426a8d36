"""A Debian 13 tree with HAProxy in it, built once by sandbox/images/haproxy.sh and kept."""

import os
import subprocess
from pathlib import Path

IMAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ant-media-cluster/images"
BUILD = Path(__file__).resolve().parents[2] / "sandbox/images/haproxy.sh"

_MOUNT_AND_BUILD = (
    'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4" && exec bash "$5" "$4"'
)


def image_layers() -> str:
    """The folders that make up the tree, as an overlay's `lowerdir`."""
    base = Path(os.environ.get("DEBIAN_13") or IMAGES / "debian-13")
    layer = IMAGES / "haproxy-tests"
    if not layer.exists():
        work, root, upper = (layer.with_name(f"{layer.name}.{part}") for part in ("work", "root", "new"))
        for folder in (work, root, upper):
            folder.mkdir(parents=True, exist_ok=True)
        command = [
            "bash",
            "-c",
            _MOUNT_AND_BUILD,
            "",
            str(base),
            str(upper),
            str(work),
            str(root),
            str(BUILD),
        ]
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", *command], check=True, timeout=300
        )
        upper.rename(layer)
    return f"{layer}:{base}"
