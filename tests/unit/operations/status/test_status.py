"""The report of `make status`, and the problems that it finds."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from operations.access import AccessProblem
from operations.instances import Instance
from operations.status import __main__ as status
from operations.status.certificate import Certificate, explain_distrust, read_certificate
from operations.status.cluster import (
    Cluster,
    Machine,
    MediaServer,
    Renewal,
    Server,
    Unreachable,
    read_renewal,
    read_servers,
)
from operations.status.problems import find_problems
from operations.status.registry import Fault, Finding, Registry
from operations.status.report import format_report

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
    instances=[
        Instance("load-balancer", "i-1", "running"),
        Instance("origin1", "i-2", "running"),
        Instance("database", "i-3", "running"),
    ],
    media_servers={"origin1": MediaServer(20, 75, 30, 75, ["LiveApp", "live"])},
    applications=["live", "LiveApp"],
)


def with_certificate(certificate: Certificate) -> Cluster:
    return replace(HEALTHY, ports={443: certificate, 6080: certificate})


def test_report_of_a_healthy_cluster() -> None:
    assert find_problems(HEALTHY, NOW) == []
    assert (
        format_report(HEALTHY, NOW)
        == """\
Machines
  load-balancer  load-balancer  -         198.51.100.1  running
  origin1        origin         10.0.0.8  198.51.100.7  running

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

Applications
  served  live, LiveApp

Last renewal
  succeeded, 2026-11-22 02:30 UTC

No problems found"""
    )


def test_report_names_the_nodes_that_were_not_asked_about_the_registry() -> None:
    unreachable = {"edge1": "no answer in time", "edge2": "no answer in time"}
    text = format_report(replace(HEALTHY, registry=Registry(unreachable=unreachable)), NOW)
    assert text.endswith(
        "No problems found, but the cluster registry on edge1, edge2 (no answer in time) could not be checked"
    )


def test_nodes_at_a_limit_are_problems() -> None:
    servers = {
        "origin1": MediaServer(75, 75, 30, 75, ["LiveApp", "live"]),
        "origin2": MediaServer(74, 75, 90, 85, ["LiveApp", "live"]),
        "edge1": MediaServer(84, 85, 84, 85, ["LiveApp", "live"]),
        "edge2": Unreachable("no answer in time"),
    }
    consequence = "Ant Media Server refuses publishers there, although its health check succeeds."
    cluster = replace(HEALTHY, media_servers=servers)
    assert find_problems(cluster, NOW) == [
        f"origin1 is at its CPU limit: its load is 75 %, and server.cpu_limit is 75. {consequence}",
        f"origin2 is at its memory limit: it uses 90 %, and server.memory_limit_percentage is 85. {consequence}",
    ]
    del servers["origin1"], servers["origin2"]
    assert format_report(cluster, NOW).endswith(
        "No problems found, but load and applications on edge2 (no answer in time) could not be checked"
    )


def test_report_names_the_applications_that_haproxy_does_not_serve() -> None:
    server = MediaServer(20, 75, 30, 75, ["new", "LiveApp", "live", "other"])
    text = format_report(replace(HEALTHY, media_servers={"origin1": server}), NOW)
    assert (
        "  served      live, LiveApp\n"
        "  not served  new, other. To serve one, list it: "
        'pulumi config set ant-media-cluster:applications \'["live", "LiveApp", "new"]\'\n'
    ) in text
    assert text.endswith("No problems found")


def test_port_with_another_certificate_has_its_own_section() -> None:
    other = replace(SERVED, serial="0C")
    text = format_report(replace(HEALTHY, ports={**HEALTHY.ports, 4444: other}), NOW)
    assert "Certificate on 443, 5443, 6080\n" in text
    assert "Certificate on 4444\n" in text


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        (
            replace(HEALTHY, ports={**HEALTHY.ports, 5080: Unreachable("Connection refused")}),
            "Port 5080 does not answer: Connection refused.",
        ),
        (
            replace(
                HEALTHY,
                servers=[
                    Server("edges", "edge2", "DOWN 1/3", 0, "Layer4 connection problem: Connection refused"),
                    Server("origins", "edge2", "DOWN (via edges/edge2)", 0),
                ],
            ),
            "edge2 is DOWN (Layer4 connection problem: Connection refused).",
        ),
        (
            replace(HEALTHY, servers=[Server("edges", "edge2", "MAINT (via edges/edge2)", 0)]),
            "edge2 is MAINT.",
        ),
        (
            replace(HEALTHY, servers=[Server("edges", "edge2", "DRAIN", 3, "Layer7 check passed: 200")]),
            "edge2 is DRAIN.",
        ),
        (
            replace(HEALTHY, registry=Registry([Finding(Fault.UNREADABLE, "edge2", "LiveApp answers 500")])),
            "edge2 cannot read the cluster registry (LiveApp answers 500).",
        ),
        (
            replace(HEALTHY, servers=Unreachable("/x answers 503")),
            "The statistics cannot be read: /x answers 503.",
        ),
        (
            replace(HEALTHY, servers=Unreachable("wrong password"), renewal=Unreachable("wrong password")),
            "The statistics and the load balancer's metrics cannot be read: wrong password.",
        ),
        (
            replace(HEALTHY, renewal=Unreachable("/y answers 503")),
            "The load balancer's metrics cannot be read: /y answers 503.",
        ),
    ],
)
def test_each_problem_is_reported_in_a_sentence(cluster: Cluster, problem: str) -> None:
    assert find_problems(cluster, NOW) == [problem]
    assert format_report(cluster, NOW).endswith(f"Problems\n  {problem}")


def with_stopped(*names: str) -> Cluster:
    assert not isinstance(HEALTHY.instances, Unreachable)
    instances = [replace(one, state="stopped") if one.name in names else one for one in HEALTHY.instances]
    return replace(HEALTHY, instances=instances)


def test_stopped_machines_are_one_problem_with_the_command_that_starts_them() -> None:
    cluster = replace(with_stopped("origin1", "database"), servers=[Server("origins", "origin1", "DOWN", 0)])
    problem = (
        "Stopped machines: origin1 (i-2), database (i-3). An update needs them running. "
        "Start them: aws ec2 start-instances --instance-ids i-2 i-3"
    )
    assert find_problems(cluster, NOW) == [problem]
    assert "  origin1        origin         10.0.0.8  198.51.100.7  stopped\n" in format_report(cluster, NOW)


def test_stopped_load_balancer_is_the_only_problem() -> None:
    cluster = replace(
        with_stopped("load-balancer"),
        ports=dict.fromkeys(HEALTHY.ports, Unreachable("no answer within 10 seconds")),
        servers=Unreachable("no answer within 10 seconds"),
        renewal=Unreachable("no answer within 10 seconds"),
        access_problem=AccessProblem([22], "nobody"),
    )
    assert [problem.split(":")[0] for problem in find_problems(cluster, NOW)] == ["Stopped machines"]


def test_ports_that_aws_keeps_closed_to_this_machine_are_one_problem() -> None:
    closed = dict.fromkeys((22, 4444, 6080, 80), Unreachable("no answer within 10 seconds"))
    cluster = replace(
        HEALTHY,
        ports={**HEALTHY.ports, **closed},
        access_problem=AccessProblem([22, 4444, 6080], "the load balancer's security group admits …"),
    )
    assert find_problems(cluster, NOW) == [
        "The load balancer's security group admits …",
        "Port 80 does not answer: no answer within 10 seconds.",
    ]


def test_failure_of_aws_hides_the_machines_state_but_is_no_problem() -> None:
    cluster = replace(HEALTHY, instances=Unreachable("the AWS session has expired: log in again"))
    assert find_problems(cluster, NOW) == []
    text = format_report(cluster, NOW)
    assert text.count("the AWS session has expired: log in again") == 1
    assert text.endswith("No problems found, but the machines' state at AWS could not be checked")


def test_failed_renewal_is_a_problem_while_the_certificate_is_valid() -> None:
    cluster = replace(HEALTHY, renewal=Renewal(failed=True, ended=NOW))
    assert [problem.split(";")[0] for problem in find_problems(cluster, NOW)] == [
        "The last renewal of the certificate failed"
    ]
    assert "failed, 2026-11-22 12:00 UTC" in format_report(cluster, NOW)


@pytest.mark.parametrize(
    ("certificate", "fault"),
    [
        (replace(SERVED, not_after=NOW + 7 * DAY), None),
        (replace(SERVED, not_after=NOW + 7 * DAY - timedelta(seconds=1)), "has 6 days left"),
        (replace(SERVED, not_after=NOW + 1.5 * DAY), "has 1 day left"),
        (replace(SERVED, not_after=NOW - DAY), "has expired"),
        (replace(SERVED, not_before=NOW + DAY), "is not valid yet"),
        (replace(SERVED, names=("other.example.com",)), "is not valid for live.example.com"),
        (replace(SERVED, names=("*.example.com",)), None),
        (replace(SERVED, issuer="placeholder", distrust="…"), "is the placeholder"),
        # A certificate of six days always has less than seven days left.
        (replace(SERVED, not_before=NOW - 4 * DAY, not_after=NOW + 2 * DAY), None),
        (replace(SERVED, not_before=NOW - 5.5 * DAY, not_after=NOW + 0.5 * DAY), "has 0 days left"),
    ],
)
def test_certificate_is_a_problem_only_when_somebody_must_act(
    certificate: Certificate, fault: str | None
) -> None:
    expected = [] if fault is None else [f"The certificate on 443, 6080 {fault}."]
    assert find_problems(with_certificate(certificate), NOW) == expected


def test_staging_certificate_hides_the_servers_but_is_no_problem() -> None:
    cluster = replace(
        with_certificate(replace(SERVED, distrust="it comes from Let's Encrypt's staging directory")),
        servers=Unreachable("the password is sent only to a server with a trusted certificate"),
    )
    assert find_problems(cluster, NOW) == []
    text = format_report(cluster, NOW)
    assert "  trusted      no: it comes from Let's Encrypt's staging directory\n" in text
    assert "  not shown: the password is sent only to a server with a trusted certificate\n" in text
    assert text.endswith("No problems found, but HAProxy's servers could not be checked")


@pytest.mark.parametrize(
    ("certificate", "openssl_error", "reason"),
    [
        (replace(SERVED, issuer="placeholder"), "self-signed certificate", "it is the placeholder"),
        (
            replace(SERVED, issuer="(STAGING) Baloney Bulgur E5"),
            "unable to get local issuer certificate",
            "staging",
        ),
        (replace(SERVED, not_after=NOW - DAY), "certificate has expired", "it has expired"),
        (replace(SERVED, names=()), "Hostname mismatch", "it is not valid for live.example.com"),
        (SERVED, "self-signed certificate", "it is self-signed"),
        (
            SERVED,
            "unable to get local issuer certificate",
            "does not know the certificate authority E7; .* SSL_CERT_FILE",
        ),
        (
            SERVED,
            "self-signed certificate in certificate chain",
            "does not know the certificate authority E7",
        ),
        (SERVED, "certificate revoked", "^certificate revoked$"),
    ],
)
def test_reason_for_distrust_names_a_cause_and_remedy(
    certificate: Certificate, openssl_error: str, reason: str
) -> None:
    assert re.search(reason, explain_distrust(certificate, "live.example.com", NOW, openssl_error))


def test_servers_without_health_check_are_left_out() -> None:
    assert read_servers(
        "# pxname,svname,scur,status,type,check_code,last_chk,check_desc,\n"
        "origins,FRONTEND,9,OPEN,0,,,,\n"
        "origins,origin1,4,DOWN 1/3,2,403,Forbidden,Layer7 wrong status,\n"
        "origins,BACKEND,4,UP,1,,,,\n"
        "edges,origin1,4,DOWN (via origins/origin1),2,,,,\n"
        "acme,certbot,0,no check,2,,,,\n"
    ) == [
        Server("origins", "origin1", "DOWN 1/3", 4, "Layer7 wrong status: 403 Forbidden"),
        Server("edges", "origin1", "DOWN (via origins/origin1)", 4),
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
        # The timer has not fired yet.
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
def test_last_renewal_is_read_from_metrics_of_systemd_units(text: str, renewal: Renewal) -> None:
    assert read_renewal(text) == renewal


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)]
)
def test_certificate_fields_are_as_openssl_prints_them(
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


@pytest.mark.parametrize(
    ("second", "printed", "exit_code"), [("UP", "", 0), ("DOWN", "Problems\n  origin1 is DOWN", 1)]
)
def test_a_server_that_is_down_after_an_update_is_looked_at_again(
    second: str,
    printed: str,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = [replace(HEALTHY, servers=[Server("origins", "origin1", state, 0)]) for state in ("DOWN", second)]
    values = {
        f"ant-media-cluster:{key}": {"value": "v"}
        for key in ("statisticsUser", "statisticsPassword", "panelPassword")
    }
    answers = {"output": {"load_balancer_ip": "198.51.100.1"}, "export": {}}
    monkeypatch.setattr(
        status, "run_pulumi", lambda command, *arguments, **_: json.dumps(answers.get(arguments[0], values))
    )
    monkeypatch.setattr(status, "read_stack_state", lambda _: None)
    monkeypatch.setattr(status, "check_cluster", lambda *_: looks.pop(0))
    monkeypatch.setattr(status, "SECOND_LOOK", 0)
    monkeypatch.setattr("sys.argv", ["status", "--problems"])
    assert status.main() == exit_code
    assert capsys.readouterr().out.startswith(printed)
    assert looks == []
