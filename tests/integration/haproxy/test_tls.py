"""TLS settings of every port, checked against Mozilla's recommendations."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import connect_tls
from tests.integration.haproxy.conftest import CLUSTER
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN, KEY_TYPES, HAProxy, make_certificate
from tests.project import PROJECT

TLS_PORTS = (443, 5443, 4444, 6080, 5080)
SSLYZE = PROJECT / ".venv/sslyze/bin/sslyze"


@pytest.fixture(scope="module", params=KEY_TYPES)
def authority(
    request: pytest.FixtureRequest, layers: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Starts HAProxy and returns the CA certificate of its certificate."""
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"), request.param)
    haproxy = HAProxy(layers, tmp_path_factory.mktemp("haproxy"), certificate)
    haproxy.start(render_haproxy_cfg(CLUSTER))
    yield certificate.with_name("authority")
    haproxy.stop()


def test_tls_complies_with_mozillas_intermediate_profile(authority: Path) -> None:
    """sslyze checks certificate, versions, ciphers, curves and vulnerabilities. It does not know the post-quantum key exchange."""
    servers = [f"{DOMAIN}:{port}{{{BALANCER}}}" for port in TLS_PORTS]
    options = ["--mozilla_config=intermediate", f"--certinfo_ca_file={authority}"]
    scan = subprocess.run([SSLYZE, *options, *servers], capture_output=True, text=True, timeout=300)
    _, _, result = scan.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    compliance = {line.strip() for line in result.splitlines() if DOMAIN in line or "*" in line}
    assert compliance == {f"{DOMAIN}:{port}: OK - Compliant." for port in TLS_PORTS}, (
        scan.stdout + scan.stderr
    )


@pytest.mark.parametrize("port", TLS_PORTS)
def test_browsers_get_http2(authority: Path, port: int) -> None:
    with connect_tls(port, "h2", "http/1.1") as connection:
        assert connection.selected_alpn_protocol() == "h2"
