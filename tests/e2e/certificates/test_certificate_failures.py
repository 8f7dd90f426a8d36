"""Failures of certificate issue, renewal and deployment: the old certificate stays, the error is reported, a later run succeeds."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.e2e.clients import SandboxInternet
from tests.e2e.cluster_certificate import DEPLOY, RENEWAL_CONFIG, ClusterCertificate
from tests.e2e.fault_injection import (
    RATE_LIMITED,
    REFUSED,
    acme_server_refusing,
    acme_server_unreachable,
    acme_server_untrusted,
    disk_full,
    haproxy_socket_missing,
    renewed_chain_corrupt,
    secrets_manager_unreachable,
)
from tests.e2e.running_cluster import DOMAIN, STATE, Cluster, CommandResult

Fault = Callable[[Cluster, SandboxInternet], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def always_due(certificate: ClusterCertificate) -> Iterator[None]:
    """Makes the certificate due for renewal, for the tests at the end of this file."""
    certificate.run_on_balancer(f"sed -i '1i renew_before_expiry = 9999 days' {RENEWAL_CONFIG}")
    yield
    # The deployment also updates the stored copy of the configuration.
    certificate.run_on_balancer(f"sed -i '/^renew_before_expiry/d' {RENEWAL_CONFIG} && {DEPLOY}")


def assert_renewal_fails(certificate: ClusterCertificate, serial: int, message: str) -> None:
    assert certificate.renew().exit_code != 0
    assert message in certificate.get_renewal_log()
    assert certificate.run_on_balancer("systemctl show -P ActiveState certbot.service") == "failed\n"
    assert certificate.renewal_failed()
    assert certificate.get_serial() == serial
    assert certificate.media_ports_serve()


def assert_renewal_succeeds(certificate: ClusterCertificate, serial: int) -> None:
    renewal = certificate.renew()
    assert renewal.exit_code == 0, certificate.get_renewal_log()
    assert not certificate.renewal_failed()
    assert certificate.get_serial() != serial
    assert certificate.media_ports_serve()


def assert_fails(result: CommandResult, *messages: str) -> None:
    assert result.exit_code != 0
    for message in messages:
        assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 6


# A certificate that certbot has and HAProxy does not


def test_certificate_that_was_not_deployed_is_deployed_by_a_later_run_without_a_new_order(
    certificate: ClusterCertificate,
) -> None:
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    with renewed_chain_corrupt(certificate):
        certificate.force_renewal()
        assert certificate.acme_server.orders == orders + 1
        assert certificate.get_serial() == serial
        message = "HAProxy rejected the certificate. The previous one stays in service. HAProxy reports:"
        assert_fails(certificate.issue(), message)
        assert_renewal_fails(certificate, serial, message)
    with disk_full(certificate, "/etc/haproxy"):
        message = "The certificate cannot be written to /etc/haproxy. The previous one stays in service."
        assert_fails(certificate.deploy(), message)
    with haproxy_socket_missing(certificate):
        message = "HAProxy runs but does not answer on its runtime socket."
        assert_fails(certificate.deploy(), message)
    assert certificate.get_serial() == serial
    assert certificate.media_ports_serve()
    assert_renewal_succeeds(certificate, serial)
    assert certificate.acme_server.orders == orders + 1


# Files of certbot that were truncated

LINEAGE = ("renewal/cluster.conf", "live/cluster/fullchain.pem", "live/cluster/privkey.pem")


def read_lineage(certificate: ClusterCertificate) -> str:
    """Returns the checksum of each file."""
    return certificate.run_on_balancer(f"cd /etc/letsencrypt && sha256sum {' '.join(LINEAGE)}")


@pytest.mark.parametrize(
    ("truncated_file", "run"),
    [
        ("renewal/cluster.conf", ClusterCertificate.renew),
        ("live/cluster/fullchain.pem", ClusterCertificate.issue),
        ("live/cluster/privkey.pem", ClusterCertificate.deploy),
    ],
)
def test_truncated_certbot_files_are_restored_from_secrets_manager_without_a_new_order(
    certificate: ClusterCertificate,
    truncated_file: str,
    run: Callable[[ClusterCertificate], CommandResult],
) -> None:
    """A renewal, an issue and a deployment restore them first."""
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    files = read_lineage(certificate)
    certificate.run_on_balancer(f": >$(readlink -f /etc/letsencrypt/{truncated_file})")
    with secrets_manager_unreachable(certificate):
        assert_fails(certificate.issue(), "Secrets Manager does not return the certificate")
    restored = run(certificate)
    assert restored.exit_code == 0, restored.output + certificate.get_renewal_log()
    assert read_lineage(certificate) == files
    assert (certificate.get_serial(), certificate.acme_server.orders) == (serial, orders)
    assert certificate.run_on_balancer("ls /etc/letsencrypt/renewal") == "cluster.conf\n"


@pytest.fixture
def stray_aaaa_record(cluster: Cluster, internet: SandboxInternet) -> Iterator[str]:
    """Creates an AAAA record for the domain and returns its address."""
    route53, address = cluster.aws_client("route53"), "2001:db8::7"
    zones = internet.call(route53.list_hosted_zones)["HostedZones"]
    (id,) = [zone["Id"] for zone in zones if DOMAIN.endswith(f".{zone['Name'].rstrip('.')}")]
    record = {"Name": DOMAIN, "Type": "AAAA", "TTL": 60, "ResourceRecords": [{"Value": address}]}

    def change(action: str) -> None:
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        internet.call(lambda: route53.change_resource_record_sets(HostedZoneId=id, ChangeBatch=batch))

    change("CREATE")
    yield address
    change("DELETE")


def test_aaaa_record_is_reported_before_a_certificate_is_requested(
    certificate: ClusterCertificate, stray_aaaa_record: str
) -> None:
    log = certificate.acme_server.log.read_text()
    assert_fails(
        certificate.issue(),
        "No certificate was requested, because not every name resolves to the load balancer yet.",
        f"  {DOMAIN}. AAAA {stray_aaaa_record}   (delete it: the load balancer has no such address,",
    )
    assert certificate.acme_server.log.read_text() == log


# Requests that fail. The certificate is always due


@pytest.mark.parametrize(
    ("fault", "message", "certbot_message"),
    [
        pytest.param(
            acme_server_untrusted,
            "The load balancer does not trust the ACME server. Set acme.root to the server's CA certificate.",
            "CERTIFICATE_VERIFY_FAILED",
            id="untrusted",
        ),
        pytest.param(
            lambda cluster, internet: acme_server_refusing(cluster, internet, REFUSED, STATE / "acme"),
            "The ACME server or certbot refused the request.",
            "forbidden by policy",
            id="refused",
        ),
        pytest.param(
            lambda cluster, internet: acme_server_refusing(cluster, internet, RATE_LIMITED, STATE / "acme"),
            "The ACME server's rate limit is reached. Wait as long as it requires before the next update.",
            "retry after 2031-01-01",
            id="rate limited",
        ),
    ],
)
@pytest.mark.usefixtures("always_due")
def test_failed_issue_names_the_cause_and_the_old_certificate_serves(
    cluster: Cluster,
    internet: SandboxInternet,
    certificate: ClusterCertificate,
    fault: Fault,
    message: str,
    certbot_message: str,
) -> None:
    serial = certificate.get_serial()
    with fault(cluster, internet):
        heading = f"certbot got no certificate for {DOMAIN}. {message} The rest of the update is done, "
        assert_fails(certificate.issue(), heading, certbot_message)
    assert certificate.get_serial() == serial
    assert certificate.media_ports_serve()


@pytest.mark.usefixtures("always_due")
def test_old_certificate_serves_until_a_later_run_gets_a_new_one(
    cluster: Cluster, certificate: ClusterCertificate
) -> None:
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    with disk_full(certificate, "/etc/letsencrypt"):
        message = "No certificate was requested, because the load balancer's disk is full."
        assert_fails(certificate.issue(), message)
        assert_renewal_fails(certificate, serial, message)
    with acme_server_unreachable(cluster):
        heading = f"certbot got no certificate for {DOMAIN}. The load balancer cannot reach the ACME server."
        assert_fails(certificate.issue(), heading, "Connection refused")
        assert_renewal_fails(certificate, serial, "Connection refused")
        status = cluster.run("make", "status")
        assert status.exit_code != 0
        assert "The last renewal of the certificate failed" in status.stdout
    assert certificate.acme_server.orders == orders
    assert_renewal_succeeds(certificate, serial)
