"""Reads certificates and their keys, and tells what is wrong with them. Free of settings, clocks and files."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    AuthorityInformationAccess,
    BasicConstraints,
    Certificate,
    DNSName,
    DuplicateExtension,
    ExtendedKeyUsage,
    ExtensionNotFound,
    InvalidVersion,
    SubjectAlternativeName,
    UnsupportedGeneralNameType,
    load_pem_x509_certificate,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

# HAProxy's runtime API, which takes a certificate into service, reads 16 KiB, and its command's own words are in it.
MOST_BYTES = 15_000

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def read_certificates(text: str) -> tuple[Certificate, ...]:
    """The certificates of a PEM text, in its order."""
    if "PRIVATE KEY-----" in text:
        raise ValueError("a private key is in it, which does not belong here: give the certificates alone")
    blocks = [block[0] for block in _BLOCK.finditer(text) if block[1] == "CERTIFICATE"]
    begun = text.count("-----BEGIN CERTIFICATE-----")
    if not begun:
        raise ValueError(
            "no certificate is in it: give PEM text (-----BEGIN CERTIFICATE-----…), not a file's name"
        )
    if len(blocks) < begun:
        raise ValueError("a certificate in it has no end (-----END CERTIFICATE-----): give the whole text")
    return tuple(_read(block, place) for place, block in enumerate(blocks, 1))


def _read(block: str, place: int) -> Certificate:
    try:
        certificate = load_pem_x509_certificate(block.encode())
        # Parts are parsed when they are asked for.
        _ = certificate.subject, certificate.issuer, certificate.extensions
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, InvalidVersion, DuplicateExtension, UnsupportedGeneralNameType):
        raise ValueError(
            f"certificate {place} in it cannot be read: give PEM text as it was issued"
        ) from None
    return certificate


def read_private_key(text: str) -> PrivateKey:
    """The key of a PEM text. Its errors show nothing of it."""
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise ValueError(
            "it is encrypted with a passphrase: give what openssl pkey -in FILE prints"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "no private key can be read in it: give PEM text (-----BEGIN PRIVATE KEY-----…), not a file's name"
        ) from None
    if not isinstance(key, PrivateKey):
        raise ValueError("browsers take no certificate of this kind of key: give an RSA or an ECDSA one")
    return key


def as_pem(certificates: Sequence[Certificate]) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def key_as_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def fingerprint(certificate: Certificate) -> str:
    return certificate.fingerprint(SHA256()).hex(":").upper()


def served(chain: Sequence[Certificate]) -> Sequence[Certificate]:
    """The chain without a root at its end: who does not have that already does not trust it either."""
    return chain[:-1] if len(chain) > 1 and _is_issued_by(chain[-1], chain[-1]) else chain


def covers(name: str, host: str) -> bool:
    """Whether a certificate's name is good for a host; a wildcard stands for one label."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def root_problems(authorities: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """What keeps certificates from being the roots that a server's certificate is traced back to."""
    for place, certificate in enumerate(authorities, 1):
        name = _named(certificate, place)
        if not _is_authority(certificate):
            yield f"{name} is not of a certificate authority (CA:TRUE): give the one that issued it"
        yield from _out_of_date(certificate, name, now)


def chain_problems(chain: Sequence[Certificate], domain: str | None, now: datetime) -> Iterator[str]:
    """What would keep browsers from taking the chain for the domain, or HAProxy from serving it."""
    leaf = chain[0]
    if _is_authority(leaf):
        yield f"{_named(leaf, 1)} is a certificate authority's: the server's own comes first, then what issued it"
    else:
        yield from _not_for_servers(leaf)
        if domain:
            yield from _not_for(domain, leaf)
    yield from _out_of_order(chain)
    for place, certificate in enumerate(served(chain), 1):
        name = _named(certificate, place)
        yield from _out_of_date(certificate, name, now)
        yield from _weak(certificate, name)


def key_problems(key: PrivateKey, chain: Sequence[Certificate]) -> Iterator[str]:
    """Whether the key is the leaf's."""
    owner = next((place for place, other in enumerate(chain, 1) if _has_key(other, key)), None)
    if owner is None:
        yield f"it is not the key of {_named(chain[0], 1)}: give the key that this certificate was asked for with"
    elif owner > 1:
        yield f"it is the key of {_named(chain[owner - 1], owner)}: give the certificate of this key first"


def _not_for_servers(leaf: Certificate) -> Iterator[str]:
    try:
        usages = leaf.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        usages = ()
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        yield f"{_named(leaf, 1)} is not for servers (extended key usage serverAuth): ask for one that is"


def _not_for(domain: str, leaf: Certificate) -> Iterator[str]:
    names = _host_names(leaf)
    listed = ", ".join(names[:5]) + ("…" if len(names) > 5 else "")
    if not any(covers(name, domain) for name in names):
        yield (
            f"{_named(leaf, 1)} is not for {domain} but for {listed or 'no host name'}: "
            "its subject alternative names count, its common name does not"
        )


def _out_of_order(chain: Sequence[Certificate]) -> Iterator[str]:
    """The first certificate that is not followed by its issuer."""
    if len(chain) == 1 and _says_where_its_issuer_is(chain[0]):
        yield (
            f"{_named(chain[0], 1)} came without {chain[0].issuer.rfc4514_string()}, which issued it: "
            "give the whole chain (certbot calls it fullchain.pem)"
        )
    named = [_named(certificate, place) for place, certificate in enumerate(chain, 1)]
    for place, (certificate, follower) in enumerate(pairwise(chain)):
        if _has_weak_signature(certificate):  # which is told anyway, and can be verified no more
            continue
        if _is_issued_by(certificate, follower):
            if _is_authority(follower):
                continue
            yield f"{named[place + 1]} is of no certificate authority, but issued {named[place]}: nobody trusts that"
            return
        others = [
            other for other, it in enumerate(chain) if it != certificate and _is_issued_by(certificate, it)
        ]
        wanted = named[others[0]] if others else f"the certificate of {certificate.issuer.rfc4514_string()}"
        yield (
            f"{named[place + 1]} is out of place, because it did not issue {named[place]}: put {wanted} there, "
            "each certificate followed by its issuer"
        )
        return


def _out_of_date(certificate: Certificate, name: str, now: datetime) -> Iterator[str]:
    if now >= certificate.not_valid_after_utc:
        yield f"{name} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: give its successor"
    if now < certificate.not_valid_before_utc:
        yield f"{name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"


def _weak(certificate: Certificate, name: str) -> Iterator[str]:
    """OpenSSL, and HAProxy with it, refuses what is weaker; browsers refuse what is more unusual."""
    match _public_key(certificate):
        case RSAPublicKey(key_size=bits) if bits < 2048:
            yield f"{name} has an RSA key of {bits} bits: ask for one of 2048 or more"
        case EllipticCurvePublicKey(curve=curve) if not isinstance(curve, SECP256R1 | SECP384R1):
            yield f"{name} has an ECDSA key on {curve.name}: ask for one on P-256 or P-384"
        case RSAPublicKey() | EllipticCurvePublicKey():
            pass
        case _:
            yield f"{name} has a key that browsers do not take: ask for an RSA or an ECDSA one"
    if _has_weak_signature(certificate):
        yield f"{name} has a signature that nobody trusts any more (SHA-1 or older): ask for one by SHA-256"


def _is_issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _says_where_its_issuer_is(certificate: Certificate) -> bool:
    """Public authorities say so in what an intermediate issued; no root needs to."""
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


def _public_key(certificate: Certificate) -> CertificatePublicKeyTypes | None:
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
    public = _public_key(certificate)
    return public is not None and _der(public) == _der(key.public_key())


def _der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _host_names(certificate: Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    return names.get_values_for_type(DNSName)


def _named(certificate: Certificate, place: int) -> str:
    """Which one it is, by its place in the text and by what people know it as."""
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    known_as = [str(name.value) for name in common_names] or _host_names(certificate)
    return f"certificate {place} ({known_as[0]})" if known_as else f"certificate {place}"
