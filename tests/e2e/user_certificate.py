"""A certificate that a user brings, issued by an intermediate of a private CA."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class UserCertificate:
    root: str
    chain: str
    """The server certificate, then the intermediate, as PEM."""
    private_key: str
    certificate: x509.Certificate


def generate_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def encode_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def issue_user_certificate(domain: str) -> UserCertificate:
    keys = {name: generate_key() for name in ("Our Root", "Our Intermediate", domain)}
    root = _sign("Our Root", keys, issuer="Our Root")
    intermediate = _sign("Our Intermediate", keys, issuer="Our Root")
    leaf = _sign(domain, keys, issuer="Our Intermediate", host=domain)
    pems = [certificate.public_bytes(Encoding.PEM).decode() for certificate in (root, leaf, intermediate)]
    return UserCertificate(pems[0], pems[1] + pems[2], encode_key(keys[domain]), leaf)


def _sign(
    name: str, keys: dict[str, ec.EllipticCurvePrivateKey], issuer: str, host: str | None = None
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
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


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
