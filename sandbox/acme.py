"""The certificate authority: Pebble, behind an API certificate of its own."""

import datetime
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox import addresses


def make_api_certificate(folder: Path) -> Path:
    """A throw-away CA and Pebble's API certificate by it; returns the CA's."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ant-media sandbox API CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, addresses.ACME_NAME)])
    now = datetime.datetime.now(datetime.UTC)
    common = x509.CertificateBuilder(
        issuer_name=ca_name,
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=365),
    )
    ca = (
        common.subject_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        common.subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(addresses.ACME_NAME), x509.IPAddress(ip_address(addresses.ACME))]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "api.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "api.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "api.key").chmod(0o600)
    (folder / "api-ca.pem").write_bytes(ca.public_bytes(pem))
    return folder / "api-ca.pem"


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Starts Pebble; `fetch_root` says when it is ready."""
    configuration = {
        "listenAddress": f"{addresses.ACME}:14000",
        "managementListenAddress": f"{addresses.ACME}:15000",
        "certificate": str(folder / "api.pem"),
        "privateKey": str(folder / "api.key"),
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}, indent=2))
    with (folder / "pebble.log").open("wb") as log:
        return subprocess.Popen(
            ["pebble", "-config", folder / "pebble.json", "-dnsserver", f"{addresses.DNS}:53"],
            # It would wait at random, and refuse one nonce in twenty, to try clients out.
            env={
                "PEBBLE_VA_NOSLEEP": "1",
                "PEBBLE_WFE_NONCEREJECT": "0",
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def fetch_root(ca: Path) -> bytes:
    """The root of what Pebble issues; it makes a new one each time it starts."""
    trust = ssl.create_default_context(cafile=str(ca))
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(
                f"https://{addresses.ACME}:15000/roots/0", context=trust, timeout=5
            ) as answer:
                root: bytes = answer.read()
                return root
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
