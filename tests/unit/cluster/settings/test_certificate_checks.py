"""Tests the validation of certificates and keys in the settings `tls` and `acme.root`."""

import base64
import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import permutations
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.settings.certificate import TlsSettings
from cluster.settings.certificate_checks import find_chain_problems, matches_host
from cluster.settings.model import NAMESPACE
from cluster.settings.pem import read_certificates
from cluster.settings.reader import SettingsError, read_settings
from tests.unit.cluster.settings.test_settings import NOW, REQUIRED, SECRET_KEYS

DOMAIN = "live.ant-media.test"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


@dataclass(frozen=True)
class Holder:
    """A key with a certificate, which can issue other certificates even if it is no CA certificate."""

    name: str
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    issuer: "Holder | None" = None
    authority: bool = False
    hosts: Sequence[str] = ()
    usage: x509.ObjectIdentifier | None = None
    days: tuple[int, int] = (-10, 80)
    issuer_url: str = ""

    @property
    def subject(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    @cached_property
    def certificate(self) -> x509.Certificate:
        issuer = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(issuer.subject)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(NOW + timedelta(days=self.days[0]))
            .not_valid_after(NOW + timedelta(days=self.days[1]))
            .add_extension(x509.BasicConstraints(self.authority, None), critical=True)
        )
        if self.hosts:
            names = x509.SubjectAlternativeName([x509.DNSName(host) for host in self.hosts])
            builder = builder.add_extension(names, critical=False)
        if self.usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([self.usage]), critical=False)
        if self.issuer_url:
            place = x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(self.issuer_url)
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
        return builder.sign(
            issuer.key, None if isinstance(issuer.key, ed25519.Ed25519PrivateKey) else SHA256()
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def key_pem(
        self,
        form: PrivateFormat = PrivateFormat.PKCS8,
        encryption: KeySerializationEncryption | None = None,
    ) -> str:
        return self.key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()).decode()


ROOT = Holder("Root", authority=True)
HIGH = Holder("High", issuer=ROOT, authority=True)
LOW = Holder("Low", issuer=HIGH, authority=True)


def server(
    *hosts: str,
    issuer: Holder = LOW,
    key: Key | None = None,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    authority: bool = False,
    days: tuple[int, int] = (-10, 80),
) -> Holder:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return Holder("Server", key, issuer, authority, hosts or (DOMAIN,), usage, days)


SERVER = server()


def chain_pem(*holders: Holder) -> str:
    return "".join(holder.pem for holder in holders)


def read(certificate: str, private_key: str) -> TlsSettings:
    raw = {key: value for key, value in REQUIRED.items() if key != "acme"}
    tls = json.dumps({"certificate": certificate, "privateKey": private_key})
    settings = read_settings(raw | {"tls": tls}, SECRET_KEYS, NOW)
    assert settings.acme is None
    assert settings.tls
    return settings.tls


def read_errors(certificate: str, private_key: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        read(certificate, private_key)
    return str(error.value).replace(f"{NAMESPACE}:tls.", "").replace(" is not valid", "").splitlines()


def test_pem_is_the_chain_and_the_key():
    tls = read(chain_pem(SERVER, LOW, HIGH), SERVER.key_pem())
    assert tls.pem.get_secret_value() == chain_pem(SERVER, LOW, HIGH) + SERVER.key_pem()
    assert tls.not_after == NOW + timedelta(days=80)


def test_fingerprint_is_formatted_as_by_openssl(tmp_path: Path):
    (tmp_path / "leaf.pem").write_text(SERVER.pem)
    printed = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "leaf.pem", "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    tls = read(chain_pem(SERVER, LOW, HIGH), SERVER.key_pem())
    assert printed.strip().partition("=")[2] == tls.fingerprint


def test_pem_omits_a_root_at_the_end_of_the_chain():
    with_root = read(chain_pem(SERVER, LOW, HIGH, ROOT), SERVER.key_pem())
    assert with_root.pem == read(chain_pem(SERVER, LOW, HIGH), SERVER.key_pem()).pem


def test_pem_does_not_depend_on_the_layout_of_the_given_texts():
    plain = read(chain_pem(SERVER, LOW), SERVER.key_pem())
    certificate = f"subject=CN = Server\n\n{SERVER.pem}\n\n   \nissued by\n{LOW.pem.rstrip()}".replace(
        "\n", "\r\n"
    )
    key = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + SERVER.key_pem(
        PrivateFormat.TraditionalOpenSSL
    )
    with_extra_text = read(certificate, key.rstrip("\n"))
    assert with_extra_text.pem == plain.pem
    assert "" not in plain.pem.get_secret_value().removesuffix("\n").split("\n")


@pytest.mark.parametrize(
    "leaf",
    [
        server(key=rsa.generate_private_key(65537, 2048)),
        server(key=ec.generate_private_key(ec.SECP384R1())),
        server("other.test", "*.ant-media.test"),
        server("LIVE.ant-media.test"),
    ],
    ids=["RSA", "P-384", "wildcard", "capitals"],
)
def test_a_certificate_that_browsers_support_is_accepted(leaf: Holder):
    assert leaf.pem in read(chain_pem(leaf, LOW), leaf.key_pem()).pem.get_secret_value()


@pytest.mark.parametrize(
    "hosts", [("*.test",), ("*.live.ant-media.test",), ("ant-media.test", "l*.ant-media.test")]
)
def test_a_certificate_for_other_names_is_refused(hosts: tuple[str, ...]):
    leaf = server(*hosts)
    assert read_errors(chain_pem(leaf, LOW), leaf.key_pem()) == [
        f"certificate: certificate 1 (Server) is for {', '.join(hosts)}, not for {DOMAIN}: "
        f"request one with {DOMAIN} among its subject alternative names (the common name does not count)"
    ]


def test_the_common_name_does_not_count():
    leaf = Holder(DOMAIN, issuer=LOW, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert read_errors(chain_pem(leaf, LOW), leaf.key_pem()) == [
        f"certificate: certificate 1 ({DOMAIN}) is for no host name, not for {DOMAIN}: "
        f"request one with {DOMAIN} among its subject alternative names (the common name does not count)"
    ]


labels = st.text("abc-*", min_size=1, max_size=3)


@given(st.lists(labels, min_size=1, max_size=4), st.lists(labels, min_size=1, max_size=4))
def test_a_wildcard_matches_one_whole_label(name: list[str], host: list[str]):
    expected = name == host or (name[0] == "*" and len(name) > 1 and name[1:] == host[1:])
    assert matches_host(".".join(name), ".".join(host)) is expected
    assert matches_host(".".join(["*", *host[1:]]), ".".join(host)) is (len(host) > 1 or host == ["*"])


@pytest.mark.parametrize(
    ("certificate", "key", "problems"),
    [
        (
            "fullchain.pem",
            "privkey.pem",
            [
                "certificate: there is no certificate: give PEM text (-----BEGIN CERTIFICATE-----…), "
                "not a file name",
                "privateKey: there is no readable private key: give PEM text (-----BEGIN PRIVATE KEY-----…), "
                "not a file name",
            ],
        ),
        (
            chain_pem(SERVER, LOW)[:-40],
            SERVER.key_pem(),
            ["certificate: a certificate has no end (-----END CERTIFICATE-----): give the whole text"],
        ),
        (
            SERVER.pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            SERVER.key_pem(),
            ["certificate: certificate 2 cannot be read: give the PEM text as it was issued"],
        ),
        (
            chain_pem(SERVER, LOW) + SERVER.key_pem(),
            SERVER.key_pem(),
            ["certificate: there is a private key among the certificates: give the certificates alone"],
        ),
        (
            chain_pem(SERVER, LOW),
            SERVER.key_pem(encryption=BestAvailableEncryption(b"passphrase")),
            ["privateKey: the key is encrypted with a passphrase: give the output of openssl pkey -in FILE"],
        ),
        (
            chain_pem(SERVER, LOW),
            SERVER.key_pem(PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"passphrase")),
            ["privateKey: the key is encrypted with a passphrase: give the output of openssl pkey -in FILE"],
        ),
        (
            chain_pem(SERVER, LOW),
            server().key_pem(),
            [
                "privateKey: this is not the key of certificate 1 (Server): "
                "give the key that its request was made with"
            ],
        ),
        (
            chain_pem(SERVER, HIGH),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (High) did not issue certificate 1 (Server), which stands before it: "
                "put the certificate of CN=Low there, so that each certificate is followed by its issuer"
            ],
        ),
        (
            chain_pem(SERVER, HIGH, LOW),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (High) did not issue certificate 1 (Server), which stands before it: "
                "put certificate 3 (Low) there, so that each certificate is followed by its issuer"
            ],
        ),
        (
            chain_pem(SERVER, SERVER, LOW),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (Server) did not issue certificate 1 (Server), which stands before it: "
                "put certificate 3 (Low) there, so that each certificate is followed by its issuer"
            ],
        ),
        (
            chain_pem(LOW, SERVER),
            SERVER.key_pem(),
            [
                "certificate: certificate 1 (Low) is a CA certificate: "
                "put the server's certificate first, then its issuers",
                "certificate: certificate 2 (Server) did not issue certificate 1 (Low), which stands before it: "
                "put the certificate of CN=High there, so that each certificate is followed by its issuer",
                "privateKey: this is the key of certificate 2 (Server): put that certificate first",
            ],
        ),
    ],
    ids=[
        "file names",
        "cut off",
        "damaged",
        "key beside the certificate",
        "passphrase",
        "passphrase, traditional",
        "other key",
        "gap",
        "swapped",
        "twice",
        "issuer first",
    ],
)
def test_certificates_and_keys_that_do_not_match_are_refused(certificate: str, key: str, problems: list[str]):
    assert read_errors(certificate, key) == problems


def test_an_issuer_with_the_right_name_but_another_key_is_refused():
    impostor = Holder("Low", issuer=HIGH, authority=True)
    (problem,) = read_errors(chain_pem(SERVER, impostor), SERVER.key_pem())
    assert problem.startswith("certificate: certificate 2 (Low) did not issue certificate 1 (Server)")


def test_an_issuer_that_is_no_ca_is_refused():
    leaf = server(issuer=SERVER)
    assert read_errors(chain_pem(leaf, SERVER), leaf.key_pem()) == [
        "certificate: certificate 1 (Server) was issued by certificate 2 (Server), which is not a CA certificate "
        "(CA:TRUE): request one from a certificate authority"
    ]


@pytest.mark.parametrize(
    "order", [order for order in permutations((SERVER, LOW, HIGH, ROOT)) if order[0] == SERVER]
)
def test_only_one_order_of_the_chain_is_accepted(order: tuple[Holder, ...]):
    problems = list(find_chain_problems([holder.certificate for holder in order], DOMAIN, NOW))
    assert bool(problems) is (order != (SERVER, LOW, HIGH, ROOT))


OLD = Holder("Old", issuer=HIGH, authority=True, days=(-100, -1))
SMALL = Holder("Small", rsa.generate_private_key(65537, 1024), HIGH, authority=True)


@pytest.mark.parametrize(
    ("leaf", "problem"),
    [
        (server(days=(-90, 0)), "1 (Server) expired at 2026-11-22 12:00 UTC: give a renewed one"),
        (
            server(days=(1, 90)),
            "1 (Server) becomes valid at 2026-11-23 12:00 UTC: give one that is valid now",
        ),
        (server(issuer=OLD), "2 (Old) expired at 2026-11-21 12:00 UTC: give a renewed one"),
        (server(issuer=SMALL), "2 (Small) has an RSA key of 1024 bits: request one with 2048 bits or more"),
        (
            server(key=ec.generate_private_key(ec.SECP521R1())),
            "1 (Server) has an ECDSA key on secp521r1: request one on P-256 or P-384",
        ),
        (
            server(usage=None),
            "1 (Server) is not for servers: request one with the extended key usage serverAuth",
        ),
        (
            server(usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            "1 (Server) is not for servers: request one with the extended key usage serverAuth",
        ),
        (
            server(authority=True),
            "1 (Server) is a CA certificate: put the server's certificate first, then its issuers",
        ),
    ],
    ids=["expired", "early", "expired issuer", "weak issuer", "P-521", "no usage", "client", "authority"],
)
def test_a_certificate_that_browsers_or_haproxy_refuse_is_refused(leaf: Holder, problem: str):
    assert leaf.issuer
    assert read_errors(chain_pem(leaf, leaf.issuer), leaf.key_pem()) == [
        f"certificate: certificate {problem}"
    ]


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048)])
def test_a_key_type_that_browsers_do_not_support_is_refused(key: Key):
    leaf = server(key=key)
    assert read_errors(chain_pem(leaf, LOW), leaf.key_pem()) == [
        "certificate: certificate 1 (Server) has a type of key that browsers do not support: request one with an RSA or ECDSA key",
        "privateKey: browsers do not support this type of key: give an RSA or ECDSA key",
    ]


def test_a_sha_1_signature_is_refused(tmp_path: Path):
    # Python's library does not create SHA-1 signatures.
    (tmp_path / "key.pem").write_text(SERVER.key_pem())
    options = f"req -x509 -sha1 -key {tmp_path}/key.pem -subj /CN=Server -days 30000 -addext basicConstraints=CA:FALSE"
    extensions = f"-addext extendedKeyUsage=serverAuth -addext subjectAltName=DNS:{DOMAIN}"
    pem = subprocess.run(
        ["openssl", *options.split(), *extensions.split()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    (certificate,) = read_certificates(pem)
    after = certificate.not_valid_before_utc + timedelta(days=1)
    assert list(find_chain_problems([certificate, ROOT.certificate], DOMAIN, max(after, NOW))) == [
        "certificate 1 (Server) has a weak signature (SHA-1 or older): request one signed with SHA-256"
    ]


def test_a_chain_too_long_for_haproxys_runtime_api_is_refused():
    leaf = server(DOMAIN, *(f"{place:0>60}.ant-media.test" for place in range(150)))
    (problem,) = read_errors(chain_pem(leaf, LOW), leaf.key_pem())
    assert problem.startswith("certificate: the chain and its key have 1")
    assert problem.endswith(
        " bytes, but HAProxy accepts 15000: give fewer certificates, or one with fewer names"
    )


def test_all_problems_are_reported_at_once():
    leaf = server("other.test", days=(-90, -1), usage=None)
    raw = {key: value for key, value in REQUIRED.items() if key != "acme"}
    tls = {"certificate": chain_pem(leaf, HIGH), "privateKey": SERVER.key_pem()}
    with pytest.raises(SettingsError) as error:
        read_settings(raw | {"tls": tls, "srt": "maybe"}, SECRET_KEYS, NOW)
    assert [line.split()[0] for line in str(error.value).splitlines()] == [
        f"{NAMESPACE}:srt",
        *[f"{NAMESPACE}:tls.certificate"] * 4,
        f"{NAMESPACE}:tls.privateKey",
    ]


DER = SERVER.certificate.public_bytes(Encoding.DER)


def read_root(root: str) -> str | None:
    acme = {"email": "operator@ant-media.test", "root": root}
    settings = read_settings(REQUIRED | {"acme": acme}, SECRET_KEYS, NOW)
    assert settings.acme
    return settings.acme.root


def test_acme_root_keeps_only_the_certificates():
    assert read_root(f"Root:\n\n{ROOT.pem}\nHigh:\n{HIGH.pem.rstrip()}") == chain_pem(ROOT, HIGH)


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        (
            chain_pem(ROOT, SERVER),
            "certificate 2 (Server) is not a CA certificate (CA:TRUE): give the certificate of its issuer",
        ),
        (chain_pem(OLD), "certificate 1 (Old) expired at 2026-11-21 12:00 UTC: give a renewed one"),
        (
            ROOT.pem + ROOT.key_pem(),
            "there is a private key among the certificates: give the certificates alone",
        ),
    ],
    ids=["no authority", "expired", "private key"],
)
def test_an_acme_root_that_cannot_be_trusted_is_refused(root: str, problem: str):
    with pytest.raises(SettingsError) as error:
        read_root(root)
    assert str(error.value) == f"{NAMESPACE}:acme.root is not valid: {problem}"


VERSION = DER.index(b"\xa0\x03\x02\x01\x02") + 4


@example({VERSION: 99})
@given(st.dictionaries(st.integers(0, len(DER) - 1), st.integers(0, 255), max_size=4))
def test_a_damaged_certificate_raises_nothing_but_settings_error(changes: dict[int, int]):
    damaged = bytearray(DER)
    for place, value in changes.items():
        damaged[place] = value
    body = base64.encodebytes(damaged).decode()
    certificate = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    with contextlib.suppress(SettingsError):
        read(certificate + LOW.pem, SERVER.key_pem())


def test_pem_holds_the_given_key():
    leaf = server(key=rsa.generate_private_key(65537, 2048))
    written = read(leaf.pem, leaf.key_pem(PrivateFormat.TraditionalOpenSSL)).pem.get_secret_value()
    key = load_pem_private_key(written.removeprefix(leaf.pem).encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert isinstance(leaf.key, rsa.RSAPrivateKey)
    assert key.private_numbers() == leaf.key.private_numbers()


def test_a_certificate_without_its_intermediate_is_refused():
    without_issuer = replace(SERVER, issuer_url="http://low.ant-media.test/low.crt")
    problems = list(find_chain_problems([without_issuer.certificate], DOMAIN, NOW))
    assert problems == [
        "certificate 1 (Server) comes without its issuer CN=Low: "
        "give the whole chain (certbot calls it fullchain.pem)"
    ]
    assert not list(find_chain_problems([without_issuer.certificate, LOW.certificate], DOMAIN, NOW))
