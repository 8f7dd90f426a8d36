"""What somebody changed by hand is reported, and the next update puts it right while the cluster serves."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import pytest

from tests.e2e.clients import Internet, Visitor, WebSocket
from tests.e2e.cluster_certificate import Certificate
from tests.e2e.running_cluster import DOMAIN, Cluster, Done

OPENED, DELETED = 8081, "firewall-load-balancer-play-http-from-0.0.0.0/0"
HAPROXY_CFG = "/etc/haproxy/haproxy.cfg"

BY_HAND = """
sed -i 's/hard-stop-after 24h/hard-stop-after 2h/' /etc/haproxy/haproxy.cfg
DEBIAN_FRONTEND=noninteractive apt-get remove --yes jq >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=somebody \\
  -keyout /run/key -out /run/certificate 2>/dev/null
cat /run/certificate /run/key >/etc/haproxy/certs/cluster.pem
systemctl reload haproxy
"""


@dataclass(frozen=True)
class Repair:
    report: Done
    answers: set[int]
    """What a viewer got, from before the update until after it."""
    serial: int
    """Of the certificate from before anything was changed."""
    ports: set[int]
    """What the load balancer's group lets in now."""


def drift(cluster: Cluster) -> Done:
    return cluster.run("make", "--silent", "drift", timeout=60)


class Firewall:
    """The load balancer's security group, as somebody with a browser has it."""

    def __init__(self, cluster: Cluster, internet: Internet) -> None:
        self._internet, self._ec2 = internet, cluster.aws("ec2")
        state = json.loads(cluster.must("sandbox/bin/pulumi", "stack", "export"))
        ids = {one["urn"].rpartition("::")[2]: one.get("id") for one in state["deployment"]["resources"]}
        self._group, self._deleted = ids["firewall-load-balancer"], ids[DELETED]

    def change(self) -> None:
        opened = {
            "IpProtocol": "tcp",
            "FromPort": OPENED,
            "ToPort": OPENED,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
        }
        self._internet.do(
            lambda: (
                self._ec2.revoke_security_group_ingress(
                    GroupId=self._group, SecurityGroupRuleIds=[self._deleted]
                ),
                self._ec2.authorize_security_group_ingress(GroupId=self._group, IpPermissions=[opened]),
            )
        )

    def ports(self) -> set[int]:
        [group] = self._internet.do(lambda: self._ec2.describe_security_groups(GroupIds=[self._group]))[
            "SecurityGroups"
        ]
        return {permission["FromPort"] for permission in group["IpPermissions"]}


def watch(operator: Visitor, end: Event) -> set[int]:
    """What somebody without TLS, whom no certificate bothers, is answered again and again."""
    answers: set[int] = set()
    while not end.wait(0.1):
        answers.add(operator.get(f"http://{DOMAIN}/").status)
    return answers


@pytest.fixture(scope="module")
def websocket(operator: Visitor) -> Iterator[WebSocket]:
    """Open from before anything was changed."""
    websocket = operator.open_websocket(f"https://{DOMAIN}/LiveApp/websocket")
    yield websocket
    websocket.close()


@pytest.fixture(scope="module")
def repair(
    cluster: Cluster, internet: Internet, operator: Visitor, certificate: Certificate, websocket: WebSocket
) -> Repair:
    serial = certificate.serial()
    firewall = Firewall(cluster, internet)
    firewall.change()
    certificate.on_balancer(BY_HAND)
    assert certificate.shown().serial_number != serial
    report = drift(cluster)
    end = Event()
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(watch, operator, end)
        try:
            cluster.update()
        finally:
            end.set()
    return Repair(report, answers.result(), serial, firewall.ports())


def test_a_renewal_is_no_drift(cluster: Cluster, certificate: Certificate) -> None:
    certificate.force_renewal()
    done = drift(cluster)
    assert done.output == "Nothing differs from the state.\n"
    assert done.status == 0


def test_what_was_changed_by_hand_is_reported_as_diffs(repair: Repair) -> None:
    said = repair.report.stdout
    assert "drift] Error 1" in repair.report.stderr  # the script's own status; make has one for all
    for line in (
        "-    hard-stop-after 24h",
        "+    hard-stop-after 2h",
        "+not installed",
        "+subject=CN=somebody",
        "-subject=CN=" + DOMAIN,
        f"{DELETED}: Security group ingress rule, deleted",
        f"+FromPort: {OPENED}",
    ):
        assert line in said, said
    assert "runs 4 scripts again and puts 2 resources right." in said
    assert "PRIVATE KEY" not in said


def test_the_next_update_puts_it_right_while_the_cluster_serves(
    cluster: Cluster, certificate: Certificate, websocket: WebSocket, repair: Repair
) -> None:
    assert repair.answers == {301}
    assert websocket.answers()
    assert certificate.serial() == repair.serial
    assert certificate.serves()
    assert certificate.on_balancer(f"cat {HAPROXY_CFG}").strip() == cluster.outputs()["haproxy_cfg"].strip()
    certificate.on_balancer("jq --version")
    assert 5080 in repair.ports
    assert OPENED not in repair.ports


def test_then_nothing_differs(cluster: Cluster, repair: Repair) -> None:
    done = drift(cluster)
    assert done.output == "Nothing differs from the state.\n"
    assert done.status == 0
