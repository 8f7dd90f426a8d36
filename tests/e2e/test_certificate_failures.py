"""Whatever fails on a certificate's way: the cluster serves what it had, says so in words, and makes up for it later."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from cryptography.x509 import DNSName, SubjectAlternativeName

from tests.e2e.clients import Internet, Visitor
from tests.e2e.cluster_certificate import Certificate
from tests.e2e.fault_injection import (
    RATE_LIMITED,
    REFUSED,
    acme_server_does_not_answer,
    an_impostor_answers,
    another_server_answers,
    disk_is_full,
    haproxy_takes_no_commands,
    renewed_with_a_chain_that_is_none,
    secrets_manager_is_away,
)
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, STATE, Cluster

Trouble = Callable[[Cluster, Internet], AbstractContextManager[None]]


@pytest.fixture
def always_due(certificate: Certificate) -> Iterator[None]:
    """certbot is to hold the certificate for due from its issue on."""
    conf = "/etc/letsencrypt/renewal/cluster.conf"
    certificate.on_balancer(f"sed -i '1i renew_before_expiry = 9999 days' {conf}")
    yield
    # What is kept of it follows.
    certificate.on_balancer(f"sed -i '/^renew_before_expiry/d' {conf} && {SCRIPTS}/deploy-certificate.sh")


def assert_renewal_fails(cluster: Cluster, certificate: Certificate, serial: int, says: str) -> None:
    assert certificate.renew().status != 0
    assert says in certificate.said()
    assert certificate.on_balancer("systemctl show -P ActiveState certbot.service") == "failed\n"
    assert certificate.renewal_failed()
    status = cluster.run("make", "status")
    assert status.status != 0
    assert "The last renewal of the certificate failed" in status.stdout
    assert certificate.serial() == serial
    assert certificate.serves()


def assert_renewal_makes_up_for_it(certificate: Certificate, serial: int) -> None:
    done = certificate.renew()
    assert done.status == 0, certificate.said()
    assert not certificate.renewal_failed()
    assert certificate.serial() != serial
    assert certificate.serves()


def assert_update_fails(certificate: Certificate, *says: str) -> None:
    update = certificate.update()
    assert update.status != 0
    for words in says:
        assert words in update.stderr
    assert "Traceback" not in update.stderr
    assert len(update.stderr.splitlines()) <= 6


@pytest.mark.parametrize(
    ("trouble", "says", "certbot_says"),
    [
        pytest.param(
            lambda cluster, _internet: acme_server_does_not_answer(cluster),
            "The load balancer cannot reach the ACME server.",
            "Connection refused",
            id="unreachable",
        ),
        pytest.param(
            an_impostor_answers,
            "The load balancer does not trust the ACME server: give its CA's certificate as acme.root.",
            "CERTIFICATE_VERIFY_FAILED",
            id="untrusted",
        ),
        pytest.param(
            lambda cluster, internet: another_server_answers(cluster, internet, REFUSED, STATE / "acme"),
            "The ACME server or certbot refused.",
            "forbidden by policy",
            id="refused",
        ),
        pytest.param(
            lambda cluster, internet: another_server_answers(cluster, internet, RATE_LIMITED, STATE / "acme"),
            "The ACME server's rate limit is reached; wait as long as it says before the next update.",
            "retry after 2031-01-01",
            id="rate limited",
        ),
    ],
)
@pytest.mark.usefixtures("always_due")
def test_without_a_new_certificate_the_old_one_serves_until_a_later_run_gets_one(
    cluster: Cluster,
    internet: Internet,
    certificate: Certificate,
    trouble: Trouble,
    says: str,
    certbot_says: str,
) -> None:
    serial = certificate.serial()
    with trouble(cluster, internet):
        heading = f"certbot got no certificate for {DOMAIN}. {says} Everything else is done; "
        assert_update_fails(certificate, heading, certbot_says)
        assert_renewal_fails(cluster, certificate, serial, certbot_says)
    assert_renewal_makes_up_for_it(certificate, serial)


@pytest.mark.usefixtures("always_due")
def test_while_there_is_no_room_for_a_certificate_none_is_asked_for(
    cluster: Cluster, certificate: Certificate
) -> None:
    serial, orders = certificate.serial(), certificate.authority.orders
    with disk_is_full(certificate, "/etc/letsencrypt"):
        says = "No certificate was asked for, because the load balancer's disk is full."
        assert_update_fails(certificate, says)
        assert_renewal_fails(cluster, certificate, serial, says)
        assert certificate.authority.orders == orders
    assert_renewal_makes_up_for_it(certificate, serial)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        pytest.param(
            partial(disk_is_full, folder="/etc/haproxy"),
            "The certificate cannot be written to /etc/haproxy; the one before it stays in service.",
            id="disk full",
        ),
        pytest.param(
            renewed_with_a_chain_that_is_none,
            "HAProxy refuses the certificate; the one before it stays in service. HAProxy says:",
            id="refused by HAProxy",
        ),
        pytest.param(
            haproxy_takes_no_commands,
            "HAProxy runs but takes no commands",
            id="hook failed",
        ),
    ],
)
def test_a_new_certificate_that_does_not_get_into_service_is_not_asked_for_again_but_put_there_by_a_later_run(
    cluster: Cluster,
    certificate: Certificate,
    trouble: Callable[[Certificate], AbstractContextManager[None]],
    says: str,
) -> None:
    serial, orders = certificate.serial(), certificate.authority.orders
    with trouble(certificate):
        certificate.force_renewal()
        assert certificate.authority.orders == orders + 1
        assert certificate.serial() == serial
        assert_update_fails(certificate, says)
        assert_renewal_fails(cluster, certificate, serial, says)
    assert_renewal_makes_up_for_it(certificate, serial)
    assert certificate.authority.orders == orders + 1


@pytest.mark.parametrize(
    "half_written", ["renewal/cluster.conf", "live/cluster/fullchain.pem", "live/cluster/privkey.pem"]
)
def test_files_that_a_crash_left_half_written_come_back_from_the_store_and_nothing_is_asked_for(
    certificate: Certificate, half_written: str
) -> None:
    serial, orders = certificate.serial(), certificate.authority.orders
    certificate.on_balancer(f": >$(readlink -f /etc/letsencrypt/{half_written})")
    with secrets_manager_is_away(certificate):
        assert_update_fails(certificate, "Secrets Manager does not give back the certificate")
    assert certificate.renew().status == 0, certificate.said()
    assert certificate.update().status == 0
    assert (certificate.serial(), certificate.authority.orders) == (serial, orders)
    assert certificate.on_balancer("ls /etc/letsencrypt/renewal") == "cluster.conf\n"


ELSEWHERE = "elsewhere.test"
NAME = f"watch.{ELSEWHERE}"


@pytest.fixture
def another_zone(cluster: Cluster, internet: Internet) -> Iterator[Callable[[str], None]]:
    """Makes the name's record, in a zone that the program knows nothing of."""
    route53 = cluster.aws("route53")
    zone = internet.do(lambda: route53.create_hosted_zone(Name=ELSEWHERE, CallerReference=NAME))
    id = zone["HostedZone"]["Id"]

    def change(action: str, address: str) -> None:
        record = {"Name": NAME, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        internet.do(lambda: route53.change_resource_record_sets(HostedZoneId=id, ChangeBatch=batch))

    made: list[str] = []

    def make(address: str) -> None:
        change("CREATE", address)
        made.append(address)

    yield make
    for address in made:
        change("DELETE", address)
    internet.do(lambda: route53.delete_hosted_zone(Id=id))


@pytest.fixture
def settings(cluster: Cluster) -> Iterator[Path]:
    """The stack's, put back afterwards."""
    path = STATE / "pulumi/Pulumi.sandbox.yaml"
    before = path.read_text()
    yield path
    path.write_text(before)
    cluster.update()


def names(certificate: Certificate) -> set[str]:
    extension = certificate.shown().extensions.get_extension_for_class(SubjectAlternativeName)
    return set(extension.value.get_values_for_type(DNSName))


@pytest.mark.usefixtures("settings")
def test_a_name_that_does_not_lead_here_yet_is_asked_for_by_the_update_after_its_record(
    cluster: Cluster, operator: Visitor, certificate: Certificate, another_zone: Callable[[str], None]
) -> None:
    serial, log = certificate.serial(), certificate.authority.log.read_text()
    cluster.set("acme.names[0]", NAME)
    cluster.set("hstsMaxAge", 600)
    failed = cluster.pulumi("up", "--yes", "--skip-preview")
    assert failed.status != 0
    assert (
        "No certificate was asked for, because not every name leads to the load balancer yet."
        in failed.output
    )
    assert f"  {NAME}. A {certificate.address}   (now: nothing)\n" in failed.output
    assert certificate.authority.log.read_text() == log
    assert certificate.serial() == serial
    # Everything else is done.
    answer = operator.get(f"https://{DOMAIN}/LiveApp/")
    assert (answer.status, answer.header("Strict-Transport-Security")) == (200, "max-age=600")

    another_zone(certificate.address)
    cluster.update()
    assert names(certificate) == {DOMAIN, NAME}
    assert certificate.authority.orders == log.count("POST /order-plz") + 1
    assert cluster.run("make", "status").status == 0
