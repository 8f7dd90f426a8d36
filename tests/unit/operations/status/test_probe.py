"""The checks of `make status`. The statistics password goes to a trusted server only."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from operations.status import probe
from operations.status.certificate import Certificate
from operations.status.cluster import Unreachable
from operations.status.probe import LoadBalancer, Login

LOGIN = Login("admin", "the-statistics-password")


class TlsServer:
    """A TLS server that records requests and answers each with a page."""

    def __init__(self, pem: Path) -> None:
        self.received: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    self.received.append(tls.recv(65536))
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            except OSError:
                connection.close()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "live.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("live.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("certificate") / "pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return pem


@pytest.fixture
def server(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    server = TlsServer(pem)
    monkeypatch.setattr(probe, "STATISTICS_PORT", server.port)
    yield server
    server.stop()


def test_trusted_server_receives_the_password(
    server: TlsServer, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    balancer = LoadBalancer("live.example.com", "127.0.0.1")
    assert balancer.fetch_page("/metrics/node", LOGIN) == "page"
    [request] = server.received
    assert request.startswith(b"GET /metrics/node HTTP/1.1\r\nHost: live.example.com:")
    assert f"Authorization: Basic {LOGIN.encoded}\r\n".encode() in request


@pytest.mark.parametrize(
    ("trusted", "domain"), [(False, "live.example.com"), (True, "somebody.else.example.com")]
)
def test_untrusted_server_receives_nothing(
    server: TlsServer, pem: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool, domain: str
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    balancer = LoadBalancer(domain, "127.0.0.1")
    assert balancer.fetch_page("/metrics/node", LOGIN) == Unreachable(
        "the password is sent only to a server with a trusted certificate"
    )
    assert not any(server.received)
    # Its certificate is reported nevertheless.
    certificate = balancer.fetch_certificate(server.port)
    assert isinstance(certificate, Certificate)
    assert certificate.distrust == (
        "it is not valid for somebody.else.example.com" if trusted else "it is self-signed"
    )


def test_closed_port_is_reported_as_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    balancer = LoadBalancer("live.example.com", "127.0.0.1")
    assert balancer.fetch_certificate(port) == Unreachable("Connection refused")
    assert balancer.check_plain_port(port) == Unreachable("Connection refused")
