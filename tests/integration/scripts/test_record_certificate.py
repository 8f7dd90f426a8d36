"""Tests the metrics that record-certificate.sh writes for node-exporter, in a Debian 13 tree."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cluster.machine_scripts import ScriptFolder, read_script
from operations.status.certificate import read_certificate
from tests.integration.scripts.certificate_pem import create_pem

# Mounts the tree for this process alone, runs the commands of a test and then the script.
RUN_IN_TREE = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
cd "$FOLDER/root"
eval "$COMMANDS"
chroot . /scripts/record-certificate.sh
ls -l var/lib/prometheus/node-exporter >&2
cat var/lib/prometheus/node-exporter/certificate.prom
"""


@dataclass
class Tree:
    """A Debian 13 tree with the script and the prelude."""

    layers: str
    folder: Path

    def record_certificate(self, commands: str = "") -> subprocess.CompletedProcess[str]:
        """Runs the shell commands and then the script. The output is the metrics file; the errors include a listing of its folder."""
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", RUN_IN_TREE],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LAYERS": self.layers,
                "FOLDER": str(self.folder),
                "COMMANDS": commands,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    def write_file(self, path: str, content: bytes) -> None:
        file = self.folder / "upper" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@pytest.fixture
def tree(layers: str, tmp_path: Path) -> Tree:
    tree = Tree(layers, tmp_path)
    for part in ("upper/var/lib/prometheus/node-exporter", "upper/scripts", "work", "root"):
        (tmp_path / part).mkdir(parents=True)
    for folder, name in (
        (ScriptFolder.EVERY_MACHINE, "prelude.sh"),
        (ScriptFolder.BALANCER, "record-certificate.sh"),
    ):
        tree.write_file(f"scripts/{name}", read_script(folder, name).encode())
        (tmp_path / "upper/scripts" / name).chmod(0o755)
    return tree


def test_metric_identifies_the_served_certificate(tree: Tree) -> None:
    pem, certificate = create_pem("live.example.com", "*.live.example.com", issuer='A "quoted" \\ CA')
    tree.write_file("etc/haproxy/certs/cluster.pem", pem)
    done = tree.record_certificate()
    [metric] = text_string_to_metric_families(done.stdout)
    [sample] = metric.samples
    seen = read_certificate(certificate.public_bytes(Encoding.DER))
    assert sample == Sample(
        "tls_certificate_not_after_timestamp_seconds",
        {
            "names": "live.example.com,*.live.example.com",
            "issuer": r"CN=A \"quoted\" \\ CA,O=Trust & Co",
            "serial": seen.serial,
        },
        certificate.not_valid_after_utc.timestamp(),
    )
    assert "# TYPE tls_certificate_not_after_timestamp_seconds gauge\n" in done.stdout
    # node-exporter can read the file, and no temporary file is left.
    assert [line.split()[0] for line in done.stderr.splitlines()[1:]] == ["-rw-r--r--"]


def test_errors_leave_the_previous_metrics_and_exit_code_0(tree: Tree) -> None:
    """On a full disk, and without a valid certificate."""
    pem, _ = create_pem("live.example.com", issuer="CA")
    tree.write_file("etc/haproxy/certs/cluster.pem", pem)
    before = tree.record_certificate().stdout
    fill_disk = """
        saved=$(<var/lib/prometheus/node-exporter/certificate.prom)
        mount -t tmpfs -o size=8k tmpfs var/lib/prometheus/node-exporter
        echo "$saved" >var/lib/prometheus/node-exporter/certificate.prom
        head -c 1M /dev/zero >var/lib/prometheus/node-exporter/ballast 2>/dev/null || true
    """
    full = tree.record_certificate(fill_disk)
    assert full.stdout == before
    assert "No space left on device" in full.stderr
    assert "The certificate's metrics could not be written. The previous ones stay." in full.stderr
    assert "certificate.prom." not in full.stderr.split("stay.")[1]

    tree.write_file("etc/haproxy/certs/cluster.pem", b"no certificate")
    assert tree.record_certificate().stdout == before
