"""Reads and writes certificates and private keys in PEM format."""

import re
from collections.abc import Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    InvalidVersion,
    UnsupportedGeneralNameType,
    load_pem_x509_certificate,
)

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def read_certificates(text: str) -> tuple[Certificate, ...]:
    """Returns the certificates of a PEM text, at least one, in the order of the text.

    Raises ValueError if the text has no certificate, one that cannot be read, or a private key.
    """
    if "PRIVATE KEY-----" in text:
        raise ValueError("there is a private key among the certificates: give the certificates alone")
    blocks = [block[0] for block in _BLOCK.finditer(text) if block[1] == "CERTIFICATE"]
    begin_lines = text.count("-----BEGIN CERTIFICATE-----")
    if not begin_lines:
        raise ValueError(
            "there is no certificate: give PEM text (-----BEGIN CERTIFICATE-----…), not a file name"
        )
    if len(blocks) < begin_lines:
        raise ValueError("a certificate has no end (-----END CERTIFICATE-----): give the whole text")
    return tuple(_read_certificate(block, number) for number, block in enumerate(blocks, 1))


def _read_certificate(block: str, number: int) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(block.encode())
        # The library parses these only on access.
        _ = certificate.subject, certificate.issuer, certificate.extensions
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType):
        raise ValueError(f"certificate {number} cannot be read: give the PEM text as it was issued") from None
    return certificate


def read_private_key(text: str) -> PrivateKey:
    """Returns the private key of a PEM text.

    Raises ValueError if the key cannot be read, is encrypted, or is neither RSA nor ECDSA. The error shows no part of
    the key.
    """
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise ValueError(
            "the key is encrypted with a passphrase: give the output of openssl pkey -in FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "there is no readable private key: give PEM text (-----BEGIN PRIVATE KEY-----…), not a file name"
        ) from None
    if not isinstance(key, PrivateKey):
        raise ValueError("browsers do not support this type of key: give an RSA or ECDSA key")
    return key


def format_certificates(certificates: Sequence[Certificate]) -> str:
    """Returns certificates as PEM text, without anything between them."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def format_private_key(key: PrivateKey) -> str:
    """Returns a private key as unencrypted PKCS #8 in PEM text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
