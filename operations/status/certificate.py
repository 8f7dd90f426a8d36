"""Reads TLS certificates, and explains why one is not trusted."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
PLACEHOLDER = "placeholder"
"""Common name of the placeholder certificate, which install-haproxy.sh creates."""


@dataclass(frozen=True)
class Certificate:
    """A certificate that a port presents."""

    names: tuple[str, ...]
    issuer: str
    serial: str
    key: str
    not_before: datetime
    not_after: datetime
    distrust: str | None = None
    """Why this machine does not trust it, or None if it does."""

    @property
    def shortest_time_left(self) -> timedelta:
        """The time left below which renewal is overdue: 7 days, or a sixth of a shorter lifetime."""
        return min(timedelta(days=7), (self.not_after - self.not_before) / 6)

    def covers(self, name: str) -> bool:
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


def read_certificate(der: bytes) -> Certificate:
    """Reads a certificate in DER form."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    serial = certificate.serial_number
    return Certificate(
        names=names,
        issuer=_common_name(certificate.issuer),
        serial=serial.to_bytes(serial.bit_length() // 8 + 1).lstrip(b"\0").hex().upper(),
        key=_describe_key(certificate.public_key()),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _common_name(name: x509.Name) -> str:
    common_names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common_names[0].value) if common_names else name.rfc4514_string()


def _describe_key(key: object) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return f"ECDSA {CURVES.get(key.curve.name, key.curve.name)}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case _:
            return type(key).__name__.removesuffix("PublicKey")


def explain_distrust(certificate: Certificate, domain: str, now: datetime, openssl_error: str) -> str:
    """Returns why a certificate failed verification, with a remedy where there is one."""
    if certificate.issuer == PLACEHOLDER:
        return "it is the placeholder that HAProxy starts with; make up requests the real one"
    if now > certificate.not_after:
        return "it has expired"
    if not certificate.covers(domain):
        return f"it is not valid for {domain}"
    if "STAGING" in certificate.issuer.upper():
        return "it comes from Let's Encrypt's staging directory, which no client trusts"
    if openssl_error == "self-signed certificate":
        return "it is self-signed"
    if "issuer" in openssl_error or "self-signed" in openssl_error:
        return (
            f"this machine does not know the certificate authority {certificate.issuer}; "
            "if it is yours, set SSL_CERT_FILE to a file with its root certificate"
        )
    return openssl_error
