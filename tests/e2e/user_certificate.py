"""A certificate as a user may bring it: by an intermediate of a CA that nobody else knows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class OwnCertificate:
    root: str
    chain: str
    """The server's own, then the intermediate's."""
    private_key: str
    certificate: x509.Certificate


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def as_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def make_certificate(domain: str) -> OwnCertificate:
    keys = {name: new_key() for name in ("Our Root", "Our Intermediate", domain)}
    root = _sign("Our Root", keys, issuer="Our Root")
    intermediate = _sign("Our Intermediate", keys, issuer="Our Root")
    leaf = _sign(domain, keys, issuer="Our Intermediate", host=domain)
    as_pem = [certificate.public_bytes(Encoding.PEM).decode() for certificate in (root, leaf, intermediate)]
    return OwnCertificate(as_pem[0], as_pem[1] + as_pem[2], as_text(keys[domain]), leaf)


def _sign(
    name: str, keys: dict[str, ec.EllipticCurvePrivateKey], issuer: str, host: str | None = None
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(keys[name].public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[issuer].public_key()), critical=False
        )
    )
    if host is None:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(keys[issuer], SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
