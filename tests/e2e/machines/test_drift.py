"""Drift: manual changes are reported, and the next update reverts them without an outage.

The update also creates the bucket of test_recordings.py. test_interrupted_scripts.py, which comes next, shows that no change is
reported any more.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import pytest

from tests.e2e.aws_account import AwsAccount
from tests.e2e.clients import Client, WebSocket
from tests.e2e.cluster_certificate import ClusterCertificate
from tests.e2e.cluster_nodes import upload_recordings
from tests.e2e.running_cluster import DOMAIN, STACK, Cluster, CommandResult, wait_until

OPENED_PORT, DELETED_RULE = 8081, "firewall-load-balancer-play-http-from-0.0.0.0/0"
HAPROXY_CFG = "/etc/haproxy/haproxy.cfg"

MANUAL_CHANGES = """
sed -i 's/hard-stop-after 24h/hard-stop-after 2h/' /etc/haproxy/haproxy.cfg
DEBIAN_FRONTEND=noninteractive apt-get remove --yes jq >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=somebody \\
  -keyout /run/key -out /run/certificate 2>/dev/null
cat /run/certificate /run/key >/etc/haproxy/certs/cluster.pem
systemctl reload haproxy
"""


@dataclass(frozen=True)
class Repair:
    report: CommandResult
    comment: str
    """Of the preview."""
    statuses: set[int]
    """Responses to a client that sent requests during the update."""
    serial: int
    """Of the certificate before the changes."""
    ports: set[int]
    """Ports that the load balancer's security group opens after the update."""


def report_drift(cluster: Cluster) -> CommandResult:
    return cluster.run("make", "--silent", "drift")


class SecurityGroup:
    """Changes the load balancer's security group, as a user of the AWS console can."""

    def __init__(self, cluster: Cluster, account: AwsAccount) -> None:
        self._account = account
        ids = {
            resource["urn"].rpartition("::")[2]: resource.get("id")
            for resource in cluster.list_state_resources()
        }
        self._group, self._rule = ids["firewall-load-balancer"], ids[DELETED_RULE]

    def change_rules(self) -> None:
        opened = {
            "IpProtocol": "tcp",
            "FromPort": OPENED_PORT,
            "ToPort": OPENED_PORT,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
        }
        self._account.call(
            "ec2", "revoke_security_group_ingress", GroupId=self._group, SecurityGroupRuleIds=[self._rule]
        )
        self._account.call(
            "ec2", "authorize_security_group_ingress", GroupId=self._group, IpPermissions=[opened]
        )

    def list_open_ports(self) -> set[int]:
        (group,) = self._account.call("ec2", "describe_security_groups", GroupIds=[self._group])[
            "SecurityGroups"
        ]
        return {permission["FromPort"] for permission in group["IpPermissions"]}


def record_statuses(client: Client, stop: Event) -> set[int]:
    """Sends plain HTTP requests, which do not depend on the certificate, until told to stop; returns their statuses."""
    statuses: set[int] = set()
    while not stop.wait(0.1):
        statuses.add(client.get(f"http://{DOMAIN}/").status)
    return statuses


@pytest.fixture(scope="module")
def websocket(operator_client: Client) -> Iterator[WebSocket]:
    """Opened before the manual changes."""
    websocket = operator_client.open_websocket(f"https://{DOMAIN}/LiveApp/websocket")
    yield websocket
    websocket.close()


@pytest.fixture(scope="module")
def repair(
    cluster: Cluster,
    account: AwsAccount,
    operator_client: Client,
    certificate: ClusterCertificate,
    websocket: WebSocket,
) -> Repair:
    serial = certificate.get_serial()
    group = SecurityGroup(cluster, account)
    group.change_rules()
    certificate.run_on_balancer(MANUAL_CHANGES)
    # The reload returns before the new worker serves.
    wait_until(lambda: certificate.get_served().serial_number != serial)
    report = report_drift(cluster)
    upload_recordings(cluster)
    comment = cluster.run("make", "--silent", "preview", "FORMAT=markdown").check()
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(record_statuses, operator_client, stop)
        try:
            cluster.update()
        finally:
            stop.set()
    return Repair(report, comment, statuses.result(), serial, group.list_open_ports())


def test_manual_changes_are_reported_as_diffs(repair: Repair) -> None:
    report = repair.report.stdout
    # The command exits with 1; make itself always exits with 2.
    assert "drift] Error 1" in repair.report.stderr
    for line in (
        "-    hard-stop-after 24h",
        "+    hard-stop-after 2h",
        "+not installed",
        "+subject=CN=somebody",
        "-subject=CN=" + DOMAIN,
        f"{DELETED_RULE}: Security group ingress rule, deleted",
        f"+FromPort: {OPENED_PORT}",
    ):
        assert line in report, report
    assert "runs 4 scripts again and restores 2 resources." in report
    assert "PRIVATE KEY" not in report


def test_preview_shows_the_bucket(repair: Repair) -> None:
    for created in (
        "`recordings-bucket`",
        "`recordings-bucket-access`",
        "`recordings-key`",
        "`recordings-user`",
    ):
        assert created in repair.comment
    assert f"{STACK}-recordings-" in repair.comment
    assert "s3RecordingEnabled" in repair.comment
    assert "none violated" in repair.comment


def test_next_update_reverts_manual_changes_without_an_outage(
    cluster: Cluster, certificate: ClusterCertificate, websocket: WebSocket, repair: Repair
) -> None:
    assert repair.statuses == {301}
    assert websocket.responds_to_ping()
    assert certificate.get_serial() == repair.serial
    assert certificate.media_ports_serve()
    assert (
        certificate.run_on_balancer(f"cat {HAPROXY_CFG}").strip()
        == cluster.get_outputs()["haproxy_cfg"].strip()
    )
    certificate.run_on_balancer("jq --version")
    assert 5080 in repair.ports
    assert OPENED_PORT not in repair.ports
