"""Finds problems of certificates before HAProxy or browsers refuse them.

Each `find_…_problems` function yields one text per problem, with its remedy. Messages name a certificate by its number
in the user's text, counted from 1, and its common name.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import MD5, SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import (
    AuthorityInformationAccess,
    BasicConstraints,
    Certificate,
    DNSName,
    ExtendedKeyUsage,
    ExtensionNotFound,
    SubjectAlternativeName,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from cluster.settings.pem import PrivateKey


def remove_root(chain: Sequence[Certificate]) -> Sequence[Certificate]:
    """Returns the chain without a root certificate at its end. Clients do not need it: they trust only roots they have."""
    return chain[:-1] if len(chain) > 1 and _is_issued_by(chain[-1], chain[-1]) else chain


def matches_host(certificate_name: str, host: str) -> bool:
    """True if a name of a certificate is valid for a host. A wildcard stands for exactly one label."""
    name, host = certificate_name.lower(), host.lower()
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def find_root_problems(roots: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """Yields why certificates cannot be trusted as roots: they are no CA's, or not valid now."""
    for number, certificate in enumerate(roots, 1):
        name = _describe(certificate, number)
        if not _is_authority(certificate):
            yield f"{name} is not a CA certificate (CA:TRUE): give the certificate of its issuer"
        yield from _find_validity_problems(certificate, name, now)


def find_chain_problems(chain: Sequence[Certificate], domain: str | None, now: datetime) -> Iterator[str]:
    """Yields why browsers would not accept the chain for the domain, or HAProxy would not load it.

    The names of the certificate are not checked if `domain` is None.
    """
    leaf = chain[0]
    if _is_authority(leaf):
        yield f"{_describe(leaf, 1)} is a CA certificate: put the server's certificate first, then its issuers"
    else:
        yield from _find_usage_problems(leaf)
        if domain:
            yield from _find_name_problems(leaf, domain)
    yield from _find_order_problems(chain)
    for number, certificate in enumerate(remove_root(chain), 1):
        name = _describe(certificate, number)
        yield from _find_validity_problems(certificate, name, now)
        yield from _find_algorithm_problems(certificate, name)


def find_key_problems(key: PrivateKey, chain: Sequence[Certificate]) -> Iterator[str]:
    """Yields why the private key does not belong to the first certificate of the chain."""
    number = next((number for number, other in enumerate(chain, 1) if _has_key(other, key)), None)
    if number is None:
        yield f"this is not the key of {_describe(chain[0], 1)}: give the key that its request was made with"
    elif number > 1:
        yield f"this is the key of {_describe(chain[number - 1], number)}: put that certificate first"


def _find_usage_problems(leaf: Certificate) -> Iterator[str]:
    try:
        usages = leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        usages = ()
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        yield f"{_describe(leaf, 1)} is not for servers: request one with the extended key usage serverAuth"


def _find_name_problems(leaf: Certificate, domain: str) -> Iterator[str]:
    names = _list_host_names(leaf)
    listed = ", ".join(names[:5]) + ("…" if len(names) > 5 else "")
    if not any(matches_host(name, domain) for name in names):
        yield (
            f"{_describe(leaf, 1)} is for {listed or 'no host name'}, not for {domain}: request one with {domain} "
            "among its subject alternative names (the common name does not count)"
        )


def _find_order_problems(chain: Sequence[Certificate]) -> Iterator[str]:
    """Yields the first certificate whose issuer does not follow it."""
    if len(chain) == 1 and _has_issuer_url(chain[0]):
        yield (
            f"{_describe(chain[0], 1)} comes without its issuer {chain[0].issuer.rfc4514_string()}: "
            "give the whole chain (certbot calls it fullchain.pem)"
        )
    names = [_describe(certificate, number) for number, certificate in enumerate(chain, 1)]
    for index, (certificate, follower) in enumerate(pairwise(chain)):
        if _has_weak_signature(
            certificate
        ):  # A problem by itself, and the library does not verify such signatures.
            continue
        if _is_issued_by(certificate, follower):
            if _is_authority(follower):
                continue
            yield (
                f"{names[index]} was issued by {names[index + 1]}, which is not a CA certificate (CA:TRUE): "
                "request one from a certificate authority"
            )
            return
        issuers = [
            other for other, it in enumerate(chain) if it != certificate and _is_issued_by(certificate, it)
        ]
        issuer = names[issuers[0]] if issuers else f"the certificate of {certificate.issuer.rfc4514_string()}"
        yield (
            f"{names[index + 1]} did not issue {names[index]}, which stands before it: put {issuer} there, "
            "so that each certificate is followed by its issuer"
        )
        return


def _find_validity_problems(certificate: Certificate, name: str, now: datetime) -> Iterator[str]:
    if now >= certificate.not_valid_after_utc:
        yield f"{name} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: give a renewed one"
    if now < certificate.not_valid_before_utc:
        yield (
            f"{name} becomes valid at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: "
            "give one that is valid now"
        )


def _find_algorithm_problems(certificate: Certificate, name: str) -> Iterator[str]:
    """Yields keys and signatures that OpenSSL, and so HAProxy, refuses as too weak, or that browsers do not support."""
    match _read_public_key(certificate):
        case RSAPublicKey(key_size=bits) if bits < 2048:
            yield f"{name} has an RSA key of {bits} bits: request one with 2048 bits or more"
        case EllipticCurvePublicKey(curve=curve) if not isinstance(curve, SECP256R1 | SECP384R1):
            yield f"{name} has an ECDSA key on {curve.name}: request one on P-256 or P-384"
        case RSAPublicKey() | EllipticCurvePublicKey():
            pass
        case _:
            yield f"{name} has a type of key that browsers do not support: request one with an RSA or ECDSA key"
    if _has_weak_signature(certificate):
        yield f"{name} has a weak signature (SHA-1 or older): request one signed with SHA-256"


def _is_issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _has_issuer_url(certificate: Certificate) -> bool:
    """True if the certificate has a URL of its issuer's certificate.

    Public CAs put one into each certificate that an intermediate issued. A root's certificate needs none.
    """
    try:
        access = certificate.extensions.get_extension_for_class(AuthorityInformationAccess).value
    except ExtensionNotFound:
        return False
    return any(entry.access_method == AuthorityInformationAccessOID.CA_ISSUERS for entry in access)


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False


def _read_public_key(certificate: Certificate) -> CertificatePublicKeyTypes | None:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _has_weak_signature(certificate: Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, MD5 | SHA1)
    except UnsupportedAlgorithm:
        return True


def _has_key(certificate: Certificate, key: PrivateKey) -> bool:
    public_key = _read_public_key(certificate)
    return public_key is not None and _encode_der(public_key) == _encode_der(key.public_key())


def _encode_der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _list_host_names(certificate: Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return names.get_values_for_type(DNSName)


def _describe(certificate: Certificate, number: int) -> str:
    """Returns `certificate 1 (NAME)`, with the common name or else the first subject alternative name."""
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = [str(name.value) for name in common_names] or _list_host_names(certificate)
    return f"certificate {number} ({names[0]})" if names else f"certificate {number}"
