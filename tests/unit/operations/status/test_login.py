"""To whom `make status` tells the statistics' password."""

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

from operations.status import __main__ as status
from operations.status.cluster import Certificate, Unseen

LOGIN = status.Login("admin", "the-statistics-password")


class Balancer:
    """A TLS server that notes what it is sent, and answers with a page."""

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
def balancer(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Balancer]:
    balancer = Balancer(pem)
    monkeypatch.setattr(status, "STATISTICS_PORT", balancer.port)
    yield balancer
    balancer.stop()


def test_a_trusted_server_is_told_the_password(
    balancer: Balancer, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    entrance = status.Entrance("live.example.com", "127.0.0.1")
    assert entrance.page("/metrics/node", LOGIN) == "page"
    [request] = balancer.received
    assert request.startswith(b"GET /metrics/node HTTP/1.1\r\nHost: live.example.com:")
    assert f"Authorization: Basic {LOGIN.encoded}\r\n".encode() in request


@pytest.mark.parametrize(
    ("trusted", "domain"), [(False, "live.example.com"), (True, "somebody.else.example.com")]
)
def test_no_other_server_is_sent_a_byte(
    balancer: Balancer, pem: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool, domain: str
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    entrance = status.Entrance(domain, "127.0.0.1")
    assert entrance.page("/metrics/node", LOGIN) == Unseen(
        "the password is sent to a server with a trusted certificate only"
    )
    assert not any(balancer.received)
    # Its certificate is shown all the same.
    certificate = entrance.certificate(balancer.port)
    assert isinstance(certificate, Certificate)
    assert certificate.untrusted == (
        "it is not for somebody.else.example.com" if trusted else "it is self-signed"
    )


def test_a_port_that_nobody_listens_on_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    entrance = status.Entrance("live.example.com", "127.0.0.1")
    assert entrance.certificate(port) == Unseen("Connection refused")
    assert entrance.plain_port(port) == Unseen("Connection refused")
