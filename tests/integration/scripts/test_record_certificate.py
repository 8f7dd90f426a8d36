"""What node-exporter is given to read: record-certificate.sh with the tools of Debian 13, at its own paths."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cluster.machine_scripts import ScriptFolder, read_script
from operations.status.cluster import Sample, read_certificate, read_metrics

# The tree for this process alone; what a test mounts over it too.
RUN = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
cd "$FOLDER/root"
eval "$BEFORE"
chroot . /scripts/record-certificate.sh
ls -l var/lib/prometheus/node-exporter >&2
cat var/lib/prometheus/node-exporter/certificate.prom
"""


def make_pem(*names: str, issuer: str) -> tuple[bytes, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Trust & Co"),
            x509.NameAttribute(NameOID.COMMON_NAME, issuer),
        ]
    )
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x0A0B0C)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private, certificate


@dataclass
class Tree:
    """A Debian 13 tree with the scripts in it."""

    layers: str
    folder: Path

    def record(self, before: str = "") -> subprocess.CompletedProcess[str]:
        """Its output is the file that it leaves."""
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", RUN],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LAYERS": f"{self.layers}",
                "FOLDER": str(self.folder),
                "BEFORE": before,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    def put(self, path: str, content: bytes) -> None:
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
        tree.put(f"scripts/{name}", read_script(folder, name).encode())
        (tmp_path / "upper/scripts" / name).chmod(0o755)
    return tree


def test_the_served_certificate_is_recorded_with_all_that_tells_it_apart(tree: Tree) -> None:
    pem, certificate = make_pem("live.example.com", "*.live.example.com", issuer='A "quoted" \\ CA')
    tree.put("etc/haproxy/certs/cluster.pem", pem)
    done = tree.record()
    [sample] = read_metrics(done.stdout)
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
    # Readable for node-exporter, and nothing else left beside it.
    assert [line.split()[0] for line in done.stderr.splitlines()[1:]] == ["-rw-r--r--"]


def test_recording_fails_nobody(tree: Tree) -> None:
    """Neither with a full disk nor without a certificate; what was recorded before stays whole."""
    pem, _ = make_pem("live.example.com", issuer="CA")
    tree.put("etc/haproxy/certs/cluster.pem", pem)
    before = tree.record().stdout
    fill = """
        kept=$(<var/lib/prometheus/node-exporter/certificate.prom)
        mount -t tmpfs -o size=8k tmpfs var/lib/prometheus/node-exporter
        echo "$kept" >var/lib/prometheus/node-exporter/certificate.prom
        head -c 1M /dev/zero >var/lib/prometheus/node-exporter/ballast 2>/dev/null || true
    """
    full = tree.record(before=fill)
    assert full.stdout == before
    assert "No space left on device" in full.stderr
    assert "The certificate's metrics could not be written; those before them stay." in full.stderr
    assert "certificate.prom." not in full.stderr.split("stay.")[1]

    tree.put("etc/haproxy/certs/cluster.pem", b"no certificate")
    assert tree.record().stdout == before
