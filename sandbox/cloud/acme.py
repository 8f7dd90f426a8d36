"""The ACME server: Pebble, with its own certificate authority."""

import json
import ssl
import subprocess
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

from sandbox.cloud import addresses, certificates

PORT, MANAGEMENT_PORT = 14000, 15000


def start(
    folder: Path,
    *,
    port: int = PORT,
    management_port: int = MANAGEMENT_PORT,
    validity: timedelta | None = None,
) -> subprocess.Popen[bytes]:
    """Starts Pebble with its files in `folder`, which must not exist; `fetch_roots` waits until it is ready.

    The caller must be in the internet namespace.
    """
    folder.mkdir()
    certificates.create(folder, "ACME API", [addresses.ACME_NAME], addresses.ACME)
    configuration: dict[str, object] = {
        "listenAddress": f"{addresses.ACME}:{port}",
        "managementListenAddress": f"{addresses.ACME}:{management_port}",
        "certificate": str(folder / "server.pem"),
        "privateKey": str(folder / "server.key"),
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    if validity:
        seconds = int(validity.total_seconds())
        # Debian 12's Pebble reads the first key, Debian 13's the second; each ignores the other.
        configuration["certificateValidityPeriod"] = seconds
        configuration["profiles"] = {"default": {"description": "default", "validityPeriod": seconds}}
    (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}, indent=2))
    with (folder / "pebble.log").open("wb") as log:
        return subprocess.Popen(
            ["pebble", "-config", folder / "pebble.json", "-dnsserver", f"{addresses.DNS}:53"],
            # By default Pebble tests its clients: it sleeps at random and rejects one nonce in twenty.
            env={
                "PEBBLE_VA_NOSLEEP": "1",
                "PEBBLE_WFE_NONCEREJECT": "0",
                # By default Pebble reuses authorizations at random; tests need a challenge for each certificate.
                "PEBBLE_AUTHZREUSE": "0",
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def fetch_roots(folder: Path, *, management_port: int = MANAGEMENT_PORT) -> bytes:
    """Returns the CA certificate of Pebble's API and the root of the certificates that it issues, as PEM.

    Waits up to two minutes for Pebble. It creates a new root each time it starts.
    """
    ca = folder / "ca.pem"
    trust = ssl.create_default_context(cafile=str(ca))
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(
                f"https://{addresses.ACME}:{management_port}/roots/0", context=trust, timeout=20
            ) as answer:
                root: bytes = answer.read()
                return ca.read_bytes() + root
        except OSError:  # a URLError; a timeout while it reads the answer is another one
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
