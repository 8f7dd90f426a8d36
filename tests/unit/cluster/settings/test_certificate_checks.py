"""Certificates of the user's own, judged as a stack's settings are read."""

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
from cluster.settings.certificate_checks import chain_problems, covers, read_certificates
from cluster.settings.model import NAMESPACE
from cluster.settings.reader import SettingsError, read_settings
from tests.unit.cluster.settings.test_settings import NOW, REQUIRED, SECRET_KEYS

DOMAIN = "live.ant-media.test"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


@dataclass(frozen=True)
class Party:
    """Somebody with a key and a certificate, and by them able to issue others, rightly or not."""

    name: str
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    issuer: "Party | None" = None
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


ROOT = Party("Root", authority=True)
HIGH = Party("High", issuer=ROOT, authority=True)
LOW = Party("Low", issuer=HIGH, authority=True)


def server(
    *hosts: str,
    issuer: Party = LOW,
    key: Key | None = None,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    authority: bool = False,
    days: tuple[int, int] = (-10, 80),
) -> Party:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return Party("Server", key, issuer, authority, hosts or (DOMAIN,), usage, days)


SERVER = server()


def text(*parties: Party) -> str:
    return "".join(party.pem for party in parties)


def read(certificate: str, private_key: str) -> TlsSettings:
    raw = {key: value for key, value in REQUIRED.items() if key != "acme"}
    tls = json.dumps({"certificate": certificate, "privateKey": private_key})
    settings = read_settings(raw | {"tls": tls}, SECRET_KEYS, NOW)
    assert settings.acme is None
    assert settings.tls
    return settings.tls


def complaint(certificate: str, private_key: str) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        read(certificate, private_key)
    return str(refusal.value).replace(f"{NAMESPACE}:tls.", "").replace(" will not do", "").splitlines()


def test_a_chain_and_its_key_become_what_haproxy_reads():
    tls = read(text(SERVER, LOW, HIGH), SERVER.key_pem())
    assert tls.pem.get_secret_value() == text(SERVER, LOW, HIGH) + SERVER.key_pem()
    assert tls.not_after == NOW + timedelta(days=80)


def test_the_fingerprint_is_the_one_that_openssl_prints(tmp_path: Path):
    (tmp_path / "leaf.pem").write_text(SERVER.pem)
    printed = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "leaf.pem", "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    tls = read(text(SERVER, LOW, HIGH), SERVER.key_pem())
    assert printed.strip().partition("=")[2] == tls.fingerprint


def test_a_superfluous_root_at_the_end_is_left_out():
    with_root = read(text(SERVER, LOW, HIGH, ROOT), SERVER.key_pem())
    assert with_root.pem == read(text(SERVER, LOW, HIGH), SERVER.key_pem()).pem


def test_how_the_texts_are_laid_out_does_not_matter():
    plain = read(text(SERVER, LOW), SERVER.key_pem())
    certificate = f"subject=CN = Server\n\n{SERVER.pem}\n\n   \nissued by\n{LOW.pem.rstrip()}".replace(
        "\n", "\r\n"
    )
    key = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + SERVER.key_pem(
        PrivateFormat.TraditionalOpenSSL
    )
    laid_out = read(certificate, key.rstrip("\n"))
    assert laid_out.pem == plain.pem
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
def test_what_browsers_take_is_taken(leaf: Party):
    assert leaf.pem in read(text(leaf, LOW), leaf.key_pem()).pem.get_secret_value()


@pytest.mark.parametrize(
    "hosts", [("*.test",), ("*.live.ant-media.test",), ("ant-media.test", "l*.ant-media.test")]
)
def test_names_that_do_not_cover_the_domain_are_refused(hosts: tuple[str, ...]):
    leaf = server(*hosts)
    assert complaint(text(leaf, LOW), leaf.key_pem()) == [
        f"certificate: certificate 1 (Server) is not for {DOMAIN} but for {', '.join(hosts)}: "
        "its subject alternative names count, its common name does not"
    ]


def test_a_common_name_is_not_enough():
    leaf = Party(DOMAIN, issuer=LOW, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert complaint(text(leaf, LOW), leaf.key_pem()) == [
        f"certificate: certificate 1 ({DOMAIN}) is not for {DOMAIN} but for no host name: "
        "its subject alternative names count, its common name does not"
    ]


labels = st.text("abc-*", min_size=1, max_size=3)


@given(st.lists(labels, min_size=1, max_size=4), st.lists(labels, min_size=1, max_size=4))
def test_a_wildcard_stands_for_one_whole_label(name: list[str], host: list[str]):
    expected = name == host or (name[0] == "*" and len(name) > 1 and name[1:] == host[1:])
    assert covers(".".join(name), ".".join(host)) is expected
    assert covers(".".join(["*", *host[1:]]), ".".join(host)) is (len(host) > 1 or host == ["*"])


@pytest.mark.parametrize(
    ("certificate", "key", "problems"),
    [
        (
            "fullchain.pem",
            "privkey.pem",
            [
                "certificate: no certificate is in it: give PEM text (-----BEGIN CERTIFICATE-----…), "
                "not a file's name",
                "privateKey: no private key can be read in it: give PEM text (-----BEGIN PRIVATE KEY-----…), "
                "not a file's name",
            ],
        ),
        (
            text(SERVER, LOW)[:-40],
            SERVER.key_pem(),
            ["certificate: a certificate in it has no end (-----END CERTIFICATE-----): give the whole text"],
        ),
        (
            SERVER.pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            SERVER.key_pem(),
            ["certificate: certificate 2 in it cannot be read: give PEM text as it was issued"],
        ),
        (
            text(SERVER, LOW) + SERVER.key_pem(),
            SERVER.key_pem(),
            ["certificate: a private key is in it, which does not belong here: give the certificates alone"],
        ),
        (
            text(SERVER, LOW),
            SERVER.key_pem(encryption=BestAvailableEncryption(b"passphrase")),
            ["privateKey: it is encrypted with a passphrase: give what openssl pkey -in FILE prints"],
        ),
        (
            text(SERVER, LOW),
            SERVER.key_pem(PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"passphrase")),
            ["privateKey: it is encrypted with a passphrase: give what openssl pkey -in FILE prints"],
        ),
        (
            text(SERVER, LOW),
            server().key_pem(),
            [
                "privateKey: it is not the key of certificate 1 (Server): "
                "give the key that this certificate was asked for with"
            ],
        ),
        (
            text(SERVER, HIGH),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (High) is out of place, because it did not issue certificate 1 (Server): "
                "put the certificate of CN=Low there, each certificate followed by its issuer"
            ],
        ),
        (
            text(SERVER, HIGH, LOW),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (High) is out of place, because it did not issue certificate 1 (Server): "
                "put certificate 3 (Low) there, each certificate followed by its issuer"
            ],
        ),
        (
            text(SERVER, SERVER, LOW),
            SERVER.key_pem(),
            [
                "certificate: certificate 2 (Server) is out of place, because it did not issue certificate 1 (Server): "
                "put certificate 3 (Low) there, each certificate followed by its issuer"
            ],
        ),
        (
            text(LOW, SERVER),
            SERVER.key_pem(),
            [
                "certificate: certificate 1 (Low) is a certificate authority's: "
                "the server's own comes first, then what issued it",
                "certificate: certificate 2 (Server) is out of place, because it did not issue certificate 1 (Low): "
                "put the certificate of CN=High there, each certificate followed by its issuer",
                "privateKey: it is the key of certificate 2 (Server): give the certificate of this key first",
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
def test_texts_that_do_not_fit_are_told(certificate: str, key: str, problems: list[str]):
    assert complaint(certificate, key) == problems


def test_an_issuer_of_the_right_name_and_another_key_is_out_of_place():
    impostor = Party("Low", issuer=HIGH, authority=True)
    (told,) = complaint(text(SERVER, impostor), SERVER.key_pem())
    assert told.startswith("certificate: certificate 2 (Low) is out of place")


def test_an_issuer_that_is_no_authority_is_refused():
    leaf = server(issuer=SERVER)
    assert complaint(text(leaf, SERVER), leaf.key_pem()) == [
        "certificate: certificate 2 (Server) is of no certificate authority, but issued certificate 1 (Server): "
        "nobody trusts that"
    ]


@pytest.mark.parametrize(
    "order", [order for order in permutations((SERVER, LOW, HIGH, ROOT)) if order[0] == SERVER]
)
def test_one_order_alone_will_do(order: tuple[Party, ...]):
    problems = list(chain_problems([party.certificate for party in order], DOMAIN, NOW))
    assert bool(problems) is (order != (SERVER, LOW, HIGH, ROOT))


OLD = Party("Old", issuer=HIGH, authority=True, days=(-100, -1))
SMALL = Party("Small", rsa.generate_private_key(65537, 1024), HIGH, authority=True)


@pytest.mark.parametrize(
    ("leaf", "problem"),
    [
        (server(days=(-90, 0)), "1 (Server) expired at 2026-11-22 12:00 UTC: give its successor"),
        (server(days=(1, 90)), "1 (Server) is valid only from 2026-11-23 12:00 UTC on"),
        (server(issuer=OLD), "2 (Old) expired at 2026-11-21 12:00 UTC: give its successor"),
        (server(issuer=SMALL), "2 (Small) has an RSA key of 1024 bits: ask for one of 2048 or more"),
        (
            server(key=ec.generate_private_key(ec.SECP521R1())),
            "1 (Server) has an ECDSA key on secp521r1: ask for one on P-256 or P-384",
        ),
        (
            server(usage=None),
            "1 (Server) is not for servers (extended key usage serverAuth): ask for one that is",
        ),
        (
            server(usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            "1 (Server) is not for servers (extended key usage serverAuth): ask for one that is",
        ),
        (
            server(authority=True),
            "1 (Server) is a certificate authority's: the server's own comes first, then what issued it",
        ),
    ],
    ids=["expired", "early", "expired issuer", "weak issuer", "P-521", "no usage", "client", "authority"],
)
def test_a_certificate_that_browsers_or_haproxy_refuse_is_refused_first(leaf: Party, problem: str):
    assert leaf.issuer
    assert complaint(text(leaf, leaf.issuer), leaf.key_pem()) == [f"certificate: certificate {problem}"]


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048)])
def test_a_kind_of_key_that_browsers_do_not_know_is_refused(key: Key):
    leaf = server(key=key)
    assert complaint(text(leaf, LOW), leaf.key_pem()) == [
        "certificate: certificate 1 (Server) has a key that browsers do not take: ask for an RSA or an ECDSA one",
        "privateKey: browsers take no certificate of this kind of key: give an RSA or an ECDSA one",
    ]


def test_a_signature_by_sha_1_is_refused(tmp_path: Path):
    # With openssl, because Python's library makes and checks no such signature any more.
    (tmp_path / "key.pem").write_text(SERVER.key_pem())
    options = f"req -x509 -sha1 -key {tmp_path}/key.pem -subj /CN=Server -days 30000 -addext basicConstraints=CA:FALSE"
    extensions = f"-addext extendedKeyUsage=serverAuth -addext subjectAltName=DNS:{DOMAIN}"
    made = subprocess.run(
        ["openssl", *options.split(), *extensions.split()],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    (certificate,) = read_certificates(made)
    after = certificate.not_valid_before_utc + timedelta(days=1)
    assert list(chain_problems([certificate, ROOT.certificate], DOMAIN, max(after, NOW))) == [
        "certificate 1 (Server) has a signature that nobody trusts any more (SHA-1 or older): ask for one by SHA-256"
    ]


def test_more_than_haproxys_runtime_api_takes_is_refused():
    leaf = server(DOMAIN, *(f"{place:0>60}.ant-media.test" for place in range(150)))
    (told,) = complaint(text(leaf, LOW), leaf.key_pem())
    assert told.startswith("certificate: with the key these are 1")
    assert told.endswith(" bytes, and HAProxy takes 15000: give fewer")


def test_everything_wrong_is_told_at_once():
    leaf = server("other.test", days=(-90, -1), usage=None)
    raw = {key: value for key, value in REQUIRED.items() if key != "acme"}
    tls = {"certificate": text(leaf, HIGH), "privateKey": SERVER.key_pem()}
    with pytest.raises(SettingsError) as refusal:
        read_settings(raw | {"tls": tls, "srt": "maybe"}, SECRET_KEYS, NOW)
    assert [line.split()[0] for line in str(refusal.value).splitlines()] == [
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


def test_the_roots_to_trust_for_an_acme_server_are_taken_without_what_surrounds_them():
    assert read_root(f"Root:\n\n{ROOT.pem}\nHigh:\n{HIGH.pem.rstrip()}") == text(ROOT, HIGH)


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        (
            text(ROOT, SERVER),
            "certificate 2 (Server) is not of a certificate authority (CA:TRUE): give the one that issued it",
        ),
        (text(OLD), "certificate 1 (Old) expired at 2026-11-21 12:00 UTC: give its successor"),
        (
            ROOT.pem + ROOT.key_pem(),
            "a private key is in it, which does not belong here: give the certificates alone",
        ),
    ],
    ids=["no authority", "expired", "private key"],
)
def test_roots_that_can_vouch_for_no_server_are_refused(root: str, problem: str):
    with pytest.raises(SettingsError) as refusal:
        read_root(root)
    assert str(refusal.value) == f"{NAMESPACE}:acme.root will not do: {problem}"


VERSION = DER.index(b"\xa0\x03\x02\x01\x02") + 4


@example({VERSION: 99})
@given(st.dictionaries(st.integers(0, len(DER) - 1), st.integers(0, 255), max_size=4))
def test_no_damage_to_a_certificate_ends_in_anything_but_a_settings_error(changes: dict[int, int]):
    damaged = bytearray(DER)
    for place, value in changes.items():
        damaged[place] = value
    body = base64.encodebytes(damaged).decode()
    certificate = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    with contextlib.suppress(SettingsError):
        read(certificate + LOW.pem, SERVER.key_pem())


def test_the_key_that_haproxy_reads_is_the_one_that_was_given():
    leaf = server(key=rsa.generate_private_key(65537, 2048))
    written = read(leaf.pem, leaf.key_pem(PrivateFormat.TraditionalOpenSSL)).pem.get_secret_value()
    key = load_pem_private_key(written.removeprefix(leaf.pem).encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert isinstance(leaf.key, rsa.RSAPrivateKey)
    assert key.private_numbers() == leaf.key.private_numbers()


def test_a_certificate_that_comes_without_the_intermediate_that_issued_it_is_not_the_whole_chain():
    alone = replace(SERVER, issuer_url="http://low.ant-media.test/low.crt")
    problems = list(chain_problems([alone.certificate], DOMAIN, NOW))
    assert problems == [
        "certificate 1 (Server) came without CN=Low, which issued it: "
        "give the whole chain (certbot calls it fullchain.pem)"
    ]
    assert not list(chain_problems([alone.certificate, LOW.certificate], DOMAIN, NOW))
