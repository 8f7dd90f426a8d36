"""Failures of certificate issue, renewal and deployment: the old certificate stays, the error is reported, a later run succeeds."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest

from tests.e2e.clients import Client, SandboxInternet
from tests.e2e.cluster_certificate import RENEWAL_CONFIG, ClusterCertificate, get_dns_names
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
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, STATE, Cluster, restored_settings

Fault = Callable[[Cluster, SandboxInternet], AbstractContextManager[None]]


@pytest.fixture
def always_due(certificate: ClusterCertificate) -> Iterator[None]:
    """Makes the certificate due for renewal at once and always."""
    certificate.run_on_balancer(f"sed -i '1i renew_before_expiry = 9999 days' {RENEWAL_CONFIG}")
    yield
    # The deployment also updates the stored copy of the configuration.
    certificate.run_on_balancer(
        f"sed -i '/^renew_before_expiry/d' {RENEWAL_CONFIG} && {SCRIPTS}/deploy-certificate.sh"
    )


def assert_renewal_fails(
    cluster: Cluster, certificate: ClusterCertificate, serial: int, message: str
) -> None:
    assert certificate.renew().exit_code != 0
    assert message in certificate.get_renewal_log()
    assert certificate.run_on_balancer("systemctl show -P ActiveState certbot.service") == "failed\n"
    assert certificate.renewal_failed()
    status = cluster.run("make", "status")
    assert status.exit_code != 0
    assert "The last renewal of the certificate failed" in status.stdout
    assert certificate.get_serial() == serial
    assert certificate.media_ports_serve()


def assert_renewal_succeeds(certificate: ClusterCertificate, serial: int) -> None:
    renewal = certificate.renew()
    assert renewal.exit_code == 0, certificate.get_renewal_log()
    assert not certificate.renewal_failed()
    assert certificate.get_serial() != serial
    assert certificate.media_ports_serve()


def assert_issue_fails(certificate: ClusterCertificate, *messages: str) -> None:
    issue = certificate.issue()
    assert issue.exit_code != 0
    for message in messages:
        assert message in issue.stderr
    assert "Traceback" not in issue.stderr
    assert len(issue.stderr.splitlines()) <= 6


@pytest.mark.parametrize(
    ("fault", "message", "certbot_message"),
    [
        pytest.param(
            lambda cluster, _internet: acme_server_unreachable(cluster),
            "The load balancer cannot reach the ACME server.",
            "Connection refused",
            id="unreachable",
        ),
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
def test_old_certificate_serves_until_a_later_run_gets_a_new_one(
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
        assert_issue_fails(certificate, heading, certbot_message)
        assert_renewal_fails(cluster, certificate, serial, certbot_message)
    assert_renewal_succeeds(certificate, serial)


@pytest.mark.usefixtures("always_due")
def test_no_certificate_is_requested_while_the_disk_is_full(
    cluster: Cluster, certificate: ClusterCertificate
) -> None:
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    with disk_full(certificate, "/etc/letsencrypt"):
        message = "No certificate was requested, because the load balancer's disk is full."
        assert_issue_fails(certificate, message)
        assert_renewal_fails(cluster, certificate, serial, message)
        assert certificate.acme_server.orders == orders
    assert_renewal_succeeds(certificate, serial)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(
            partial(disk_full, folder="/etc/haproxy"),
            "The certificate cannot be written to /etc/haproxy. The previous one stays in service.",
            id="disk full",
        ),
        pytest.param(
            renewed_chain_corrupt,
            "HAProxy rejected the certificate. The previous one stays in service. HAProxy reports:",
            id="refused by HAProxy",
        ),
        pytest.param(
            haproxy_socket_missing,
            "HAProxy runs but does not answer on its runtime socket.",
            id="hook failed",
        ),
    ],
)
def test_certificate_that_was_not_deployed_is_deployed_by_a_later_run_without_a_new_order(
    cluster: Cluster,
    certificate: ClusterCertificate,
    fault: Callable[[ClusterCertificate], AbstractContextManager[None]],
    message: str,
) -> None:
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    with fault(certificate):
        certificate.force_renewal()
        assert certificate.acme_server.orders == orders + 1
        assert certificate.get_serial() == serial
        assert_issue_fails(certificate, message)
        assert_renewal_fails(cluster, certificate, serial, message)
    assert_renewal_succeeds(certificate, serial)
    assert certificate.acme_server.orders == orders + 1


@pytest.mark.parametrize(
    "truncated_file", ["renewal/cluster.conf", "live/cluster/fullchain.pem", "live/cluster/privkey.pem"]
)
def test_truncated_certbot_files_are_restored_from_secrets_manager_without_a_new_order(
    certificate: ClusterCertificate, truncated_file: str
) -> None:
    serial, orders = certificate.get_serial(), certificate.acme_server.orders
    certificate.run_on_balancer(f": >$(readlink -f /etc/letsencrypt/{truncated_file})")
    with secrets_manager_unreachable(certificate):
        assert_issue_fails(certificate, "Secrets Manager does not return the certificate")
    assert certificate.renew().exit_code == 0, certificate.get_renewal_log()
    assert certificate.issue().exit_code == 0
    assert (certificate.get_serial(), certificate.acme_server.orders) == (serial, orders)
    assert certificate.run_on_balancer("ls /etc/letsencrypt/renewal") == "cluster.conf\n"


FOREIGN_ZONE = "foreign-zone.test"
NAME = f"watch.{FOREIGN_ZONE}"


@pytest.fixture
def create_foreign_record(cluster: Cluster, internet: SandboxInternet) -> Iterator[Callable[[str], None]]:
    """Creates a hosted zone that the stack does not manage; returns a function that creates NAME's record in it."""
    route53 = cluster.aws_client("route53")
    zone = internet.call(lambda: route53.create_hosted_zone(Name=FOREIGN_ZONE, CallerReference=NAME))
    id = zone["HostedZone"]["Id"]

    def change(action: str, address: str) -> None:
        record = {"Name": NAME, "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        internet.call(lambda: route53.change_resource_record_sets(HostedZoneId=id, ChangeBatch=batch))

    created: list[str] = []

    def create(address: str) -> None:
        change("CREATE", address)
        created.append(address)

    yield create
    for address in created:
        change("DELETE", address)
    internet.call(lambda: route53.delete_hosted_zone(Id=id))


@pytest.fixture
def settings_restored(cluster: Cluster) -> Iterator[None]:
    """Restores the settings afterwards and applies them."""
    with restored_settings():
        yield
    cluster.update()


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
    assert_issue_fails(
        certificate,
        "No certificate was requested, because not every name resolves to the load balancer yet.",
        f"  {DOMAIN}. AAAA {stray_aaaa_record}   (delete it: the load balancer has no such address,",
    )
    assert certificate.acme_server.log.read_text() == log


@pytest.mark.usefixtures("settings_restored")
def test_name_without_a_record_is_certified_by_the_first_update_after_the_record_exists(
    cluster: Cluster,
    operator_client: Client,
    certificate: ClusterCertificate,
    create_foreign_record: Callable[[str], None],
) -> None:
    serial, log = certificate.get_serial(), certificate.acme_server.log.read_text()
    cluster.set_config("acme.names[0]", NAME)
    cluster.set_config("hstsMaxAge", 600)
    failed = cluster.pulumi("up", "--yes", "--skip-preview")
    assert failed.exit_code != 0
    assert (
        "No certificate was requested, because not every name resolves to the load balancer yet."
        in failed.output
    )
    assert f"  {NAME}. A {certificate.address}   (now: nothing)\n" in failed.output
    assert certificate.acme_server.log.read_text() == log
    assert certificate.get_serial() == serial
    # The update applied everything else.
    response = operator_client.get(f"https://{DOMAIN}/LiveApp/")
    assert (response.status, response.header("Strict-Transport-Security")) == (200, "max-age=600")

    create_foreign_record(certificate.address)
    cluster.update()
    assert get_dns_names(certificate.get_served()) == {DOMAIN, NAME}
    assert certificate.acme_server.orders == log.count("POST /order-plz") + 1
    assert cluster.run("make", "status").exit_code == 0
