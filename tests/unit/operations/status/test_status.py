"""What `make status` says, and when it calls a cluster unhealthy."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from operations.status.cluster import (
    Certificate,
    Cluster,
    Machine,
    Renewal,
    Sample,
    Server,
    Unseen,
    problems,
    read_certificate,
    read_metrics,
    read_renewal,
    read_servers,
    report,
    why_untrusted,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SERVED = Certificate(
    names=("live.example.com", "*.media.example.com"),
    issuer="E7",
    serial="0A1B",
    key="ECDSA P-256",
    not_before=NOW - 60 * DAY,
    not_after=NOW + 60 * DAY,
)
HEALTHY = Cluster(
    domain="live.example.com",
    names=("live.example.com",),
    machines=[
        Machine("load-balancer", "load-balancer", "-", "198.51.100.1"),
        Machine("origin1", "origin", "10.0.0.8", "198.51.100.7"),
    ],
    ports={80: None, 5080: None, 443: SERVED, 5443: SERVED, 4444: SERVED, 6080: SERVED},
    servers=[Server("origins", "origin1", "UP", 12), Server("rtmp", "origin1", "UP", 3)],
    renewal=Renewal(failed=False, ended=NOW - timedelta(hours=9, minutes=30)),
)


def with_certificate(certificate: Certificate) -> Cluster:
    return replace(HEALTHY, ports={443: certificate, 6080: certificate})


def test_a_healthy_cluster_reads_like_this() -> None:
    assert problems(HEALTHY, NOW) == []
    assert (
        report(HEALTHY, NOW)
        == """\
Machines
  load-balancer  load-balancer  -         198.51.100.1
  origin1        origin         10.0.0.8  198.51.100.7

HAProxy's servers
  backend  server   state  sessions
  origins  origin1  UP     12
  rtmp     origin1  UP     3

Certificate on 443, 5443, 4444, 6080
  names        live.example.com, *.media.example.com
  issuer       E7
  serial       0A1B
  key          ECDSA P-256
  valid until  2027-01-21 12:00 UTC, 60 days left
  trusted      yes

Last renewal
  succeeded, 2026-11-22 02:30 UTC

Nothing is wrong"""
    )


def test_a_port_with_another_certificate_stands_apart() -> None:
    other = replace(SERVED, serial="0C")
    text = report(replace(HEALTHY, ports={**HEALTHY.ports, 4444: other}), NOW)
    assert "Certificate on 443, 5443, 6080\n" in text
    assert "Certificate on 4444\n" in text


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (
            replace(HEALTHY, ports={**HEALTHY.ports, 5080: Unseen("Connection refused")}),
            "Port 5080 does not answer: Connection refused.",
        ),
        (
            replace(
                HEALTHY,
                servers=[Server("edges", "edge2", "DOWN 1/3", 0), Server("origins", "edge2", "DOWN", 0)],
            ),
            "edge2 is DOWN.",
        ),
        (
            replace(HEALTHY, servers=Unseen("/x answers 503")),
            "The statistics cannot be read: /x answers 503.",
        ),
        (
            replace(HEALTHY, servers=Unseen("wrong password"), renewal=Unseen("wrong password")),
            "The statistics and the load balancer's metrics cannot be read: wrong password.",
        ),
        (
            replace(HEALTHY, renewal=Unseen("/y answers 503")),
            "The load balancer's metrics cannot be read: /y answers 503.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(cluster: Cluster, said: str) -> None:
    assert problems(cluster, NOW) == [said]
    assert report(cluster, NOW).endswith(f"Not healthy\n  {said}")


def test_a_renewal_that_failed_is_wrong_while_the_certificate_is_good() -> None:
    cluster = replace(HEALTHY, renewal=Renewal(failed=True, ended=NOW))
    assert [problem.split(";")[0] for problem in problems(cluster, NOW)] == [
        "The last renewal of the certificate failed"
    ]
    assert "failed, 2026-11-22 12:00 UTC" in report(cluster, NOW)


@pytest.mark.parametrize(
    ("certificate", "complaint"),
    [
        (replace(SERVED, not_after=NOW + 7 * DAY), None),
        (replace(SERVED, not_after=NOW + 7 * DAY - timedelta(seconds=1)), "has 6 days left"),
        (replace(SERVED, not_after=NOW + 1.5 * DAY), "has 1 day left"),
        (replace(SERVED, not_after=NOW - DAY), "has expired"),
        (replace(SERVED, not_before=NOW + DAY), "is not valid yet"),
        (replace(SERVED, names=("other.example.com",)), "is not for live.example.com"),
        (replace(SERVED, names=("*.example.com",)), None),
        (replace(SERVED, issuer="placeholder", untrusted="…"), "is the placeholder"),
        # One of six days lives its whole life below seven.
        (replace(SERVED, not_before=NOW - 4 * DAY, not_after=NOW + 2 * DAY), None),
        (replace(SERVED, not_before=NOW - 5.5 * DAY, not_after=NOW + 0.5 * DAY), "has 0 days left"),
    ],
)
def test_a_certificate_is_complained_of_only_when_it_needs_somebody(
    certificate: Certificate, complaint: str | None
) -> None:
    said = [] if complaint is None else [f"The certificate on 443, 6080 {complaint}."]
    assert problems(with_certificate(certificate), NOW) == said


def test_staging_hides_the_servers_but_is_no_failure() -> None:
    cluster = replace(
        with_certificate(replace(SERVED, untrusted="it is of Let's Encrypt's staging directory")),
        servers=Unseen("the password is sent to a server with a trusted certificate only"),
    )
    assert problems(cluster, NOW) == []
    text = report(cluster, NOW)
    assert "  trusted      no: it is of Let's Encrypt's staging directory\n" in text
    assert "  not shown: the password is sent to a server with a trusted certificate only\n" in text
    assert text.endswith("Nothing is wrong that could be seen")


@pytest.mark.parametrize(
    ("certificate", "verification", "reason"),
    [
        (replace(SERVED, issuer="placeholder"), "self-signed certificate", "it is the placeholder"),
        (
            replace(SERVED, issuer="(STAGING) Baloney Bulgur E5"),
            "unable to get local issuer certificate",
            "staging",
        ),
        (replace(SERVED, not_after=NOW - DAY), "certificate has expired", "it has expired"),
        (replace(SERVED, names=()), "Hostname mismatch", "it is not for live.example.com"),
        (SERVED, "self-signed certificate", "it is self-signed"),
        (
            SERVED,
            "unable to get local issuer certificate",
            "does not know the authority E7; .* SSL_CERT_FILE",
        ),
        (SERVED, "self-signed certificate in certificate chain", "does not know the authority E7"),
        (SERVED, "certificate revoked", "^certificate revoked$"),
    ],
)
def test_the_reason_for_distrust_is_one_that_can_be_acted_on(
    certificate: Certificate, verification: str, reason: str
) -> None:
    assert re.search(reason, why_untrusted(certificate, "live.example.com", NOW, verification))


def test_servers_that_nobody_checks_are_left_out() -> None:
    assert read_servers(
        "# pxname,svname,scur,status,type,\n"
        "origins,FRONTEND,9,OPEN,0,\n"
        "origins,origin1,4,UP 2/3,2,\n"
        "origins,BACKEND,4,UP,1,\n"
        "acme,certbot,0,no check,2,\n"
    ) == [Server("origins", "origin1", "UP 2/3", 4)]


def test_metrics_are_read_with_labels_that_hold_anything() -> None:
    text = 'a{x="1,}\\"\\\\n",y=""} 2.5e+09\n# HELP a 1\n\nb 3 1700000000\nc{} +Inf\n'
    assert read_metrics(text) == [
        Sample("a", {"x": '1,}"\\n', "y": ""}, 2.5e9),
        Sample("b", {}, 3),
        Sample("c", {}, float("inf")),
    ]


@pytest.mark.parametrize(
    ("text", "renewal"),
    [
        ("", Renewal(failed=False, ended=None)),
        (
            'node_systemd_unit_state{name="certbot.service",state="failed",type="oneshot"} 1\n'
            'node_systemd_unit_state{name="certbot.service",state="inactive",type="oneshot"} 0\n'
            'node_systemd_timer_last_trigger_seconds{name="certbot.timer"} 1.7e+09\n',
            Renewal(True, datetime.fromtimestamp(1_700_000_000, UTC)),
        ),
        # A machine whose timer has not fired yet.
        (
            'node_systemd_timer_last_trigger_seconds{name="certbot.timer"} 0\n',
            Renewal(failed=False, ended=None),
        ),
        (
            'node_systemd_unit_state{name="haproxy.service",state="failed"} 1\n',
            Renewal(failed=False, ended=None),
        ),
    ],
)
def test_how_the_last_renewal_went_is_what_systemd_says_of_certbot(text: str, renewal: Renewal) -> None:
    assert read_renewal(read_metrics(text)) == renewal


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]
)
def test_a_certificate_is_read_as_openssl_shows_it(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "R13")])
    names = x509.SubjectAlternativeName([x509.DNSName("a.example.com"), x509.DNSName("b.example.com")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 0x80FF, NOW, NOW + 90 * DAY)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    assert read_certificate(certificate.public_bytes(Encoding.DER)) == Certificate(
        names=("a.example.com", "b.example.com"),
        issuer="R13",
        serial="80FF",
        key="RSA 2048" if isinstance(key, rsa.RSAPrivateKey) else "ECDSA P-256",
        not_before=NOW,
        not_after=NOW + 90 * DAY,
    )
