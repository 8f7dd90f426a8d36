"""Renewals that nobody notices: under load, and by the distribution's timer."""

import json
import re
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.acme_servers import AcmeServer, another_acme_server
from tests.e2e.clients import Internet
from tests.e2e.cluster_certificate import FORCE_RENEWAL, Certificate
from tests.e2e.running_cluster import DOMAIN, Cluster, eventually, running

LOAD = Path(__file__).with_name("load_generator.py")
OPEN_WATCHER = Path(__file__).with_name("file_open_monitor.py")
PEM = "/etc/haproxy/certs/cluster.pem"

HAPROXYS_FOLDERS = ("/etc/haproxy", "/etc/haproxy/certs")

AT_ONCE = """\
[Timer]
OnCalendar=
OnActiveSec=1s
RandomizedDelaySec=0
AccuracySec=100ms
"""


WHEN = """\
date +%s -d "$(systemctl show -P LastTriggerUSec certbot.timer)"
date +%s -d "$(systemctl show -P ExecMainStartTimestamp certbot.service)"
"""
"""The timer went off last, and the service started."""


def haproxy_processes(certificate: Certificate) -> str:
    return certificate.on_balancer("ps -C haproxy -o pid=,lstart=")


def issued_at(certificate: Certificate) -> float:
    return float(certificate.on_balancer("stat -L -c %.Y /etc/letsencrypt/live/cluster/cert.pem"))


def test_under_load_a_renewal_costs_no_request_and_no_connection_and_serves_within_5_seconds(
    cluster: Cluster, certificate: Certificate
) -> None:
    before = certificate.serial()
    processes = haproxy_processes(certificate)
    asked = len(certificate.authority.log.read_text())
    with running(cluster.as_operator(sys.executable, LOAD, DOMAIN)) as load:
        assert load.stdout is not None
        assert load.stdin is not None
        assert load.stdout.readline() == "ready\n"
        time.sleep(2)
        with running(["sandbox/bin/cloud", "shell", "load-balancer", *FORCE_RENEWAL]) as renewal:
            eventually(lambda: certificate.serial() != before, within=15, every=0.1)
            served = time.time()
            assert renewal.wait(timeout=15) == 0
        time.sleep(2)
        load.stdin.close()
        report: dict[str, Any] = json.loads(load.stdout.read())

    assert served - issued_at(certificate) < 5
    assert report["failed"] == report["dropped"] == {}
    assert report["websockets"] == 500
    assert report["pongs"] >= 3
    assert report["requests"] / report["seconds"] > 150
    assert haproxy_processes(certificate) == processes
    assert "Attempting to validate w/ HTTP" in certificate.authority.log.read_text()[asked:]


def test_the_metric_of_the_days_left_says_what_a_handshake_says(certificate: Certificate) -> None:
    found = re.findall(
        r"(?m)^tls_certificate_not_after_timestamp_seconds\{(.*)\} (\S+)$", certificate.metrics()
    )
    ((labels, not_after),) = found
    shown = certificate.shown()
    assert float(not_after) == shown.not_valid_after_utc.astimezone(UTC).timestamp()
    assert f'names="{DOMAIN}"' in labels
    assert int(re.findall(r'serial="(\w+)"', labels)[0], 16) == shown.serial_number


@pytest.fixture
def due(internet: Internet, certificate: Certificate) -> Iterator[AcmeServer]:
    """The cluster has a certificate of a server whose certificates certbot holds for due 5 seconds after their issue."""
    with another_acme_server(internet, 14020, timedelta(seconds=10)) as server:
        moved = certificate.update(server)
        assert moved.status == 0, moved.output
        time.sleep(5)
        yield server
        back = certificate.update()
        assert back.status == 0, back.output
        certificate.on_balancer(f"rm -r /etc/letsencrypt/accounts/{urlsplit(server.directory).netloc}")


@contextmanager
def timer_that_fires_at_once(cluster: Cluster, certificate: Certificate) -> Generator[None]:
    folder = "/run/systemd/system/certbot.timer.d"
    start = "systemctl daemon-reload && systemctl restart certbot.timer"
    done = cluster.shell("load-balancer", "install", "-D", "/dev/stdin", f"{folder}/soon.conf", input=AT_ONCE)
    assert done.status == 0, done.output
    try:
        certificate.on_balancer(start)
        yield
    finally:
        certificate.on_balancer(f"rm -r {folder} && {start}")


def test_certbots_timer_is_there_to_stay(certificate: Certificate) -> None:
    assert certificate.on_balancer("systemctl is-enabled certbot.timer") == "enabled\n"
    assert certificate.on_balancer("systemctl is-active certbot.timer") == "active\n"


def test_the_timer_renews_what_is_due_and_its_key_is_never_there_for_others_to_read(
    cluster: Cluster, certificate: Certificate, due: AcmeServer
) -> None:
    before, orders = certificate.serial(), due.orders
    watcher = ["python3", "-c", OPEN_WATCHER.read_text(), *HAPROXYS_FOLDERS]
    with running(["sandbox/bin/cloud", "shell", "load-balancer", *watcher]) as watching:
        assert watching.stdout is not None
        assert watching.stdin is not None
        assert watching.stdout.readline() == "ready\n"
        with timer_that_fires_at_once(cluster, certificate):
            eventually(lambda: certificate.serial() != before, within=20)
            eventually(
                lambda: certificate.on_balancer("systemctl show -P ActiveState certbot") == "inactive\n", 10
            )
            triggered, started = map(float, certificate.on_balancer(WHEN).split())
        watching.stdin.close()
        seen: list[dict[str, Any]] = json.loads(watching.stdout.read())

    assert 0 <= started - triggered <= 1
    assert due.orders == orders + 1
    assert certificate.on_balancer("systemctl show -P Result certbot") == "success\n"

    inode = int(certificate.on_balancer(f"stat -c %i {PEM}"))
    with_key = {file["inode"] for file in seen if file["key"]}
    assert inode in with_key
    # It was seen before its first byte.
    assert next(file["size"] for file in seen if file["inode"] == inode) == 0
    assert {file["mode"] for file in seen if file["inode"] in with_key} == {"0600"}
    assert certificate.on_balancer(f"stat -c '%a %U' {PEM}") == "600 root\n"
