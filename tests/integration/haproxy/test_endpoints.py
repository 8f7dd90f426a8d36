"""The check of the public ports, with HAProxy and dummy nodes."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from cluster.machine_scripts import ScriptFolder, read_script
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import BALANCER, DOMAIN


def check_endpoints(certificate: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash"],
        input=read_script(ScriptFolder.OPERATOR, "check-endpoints.sh"),
        env={
            "PATH": "/usr/bin:/bin",
            "DOMAIN": DOMAIN,
            "ADDRESS": BALANCER,
            "APPLICATIONS": " ".join(CLUSTER.applications),
            "TRUST": (certificate.parent / "authority").read_text(),
            "RTMP_PORTS": f"1935 {CLUSTER.rtmps_port}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(autouse=True)
def administrator(balancer: Balancer) -> None:
    """The check runs on this machine, which is an administrator's."""
    balancer.haproxy.reload(render_haproxy_cfg(replace(CLUSTER, admin_cidrs=(f"{BALANCER}/32",))))


def test_ports_of_a_cluster_pass(certificate: Path) -> None:
    checked = check_endpoints(certificate)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"All ports of {DOMAIN} passed their checks\n"


def test_machine_that_is_not_in_admin_cidrs_is_told_so(certificate: Path, balancer: Balancer) -> None:
    balancer.haproxy.reload(render_haproxy_cfg(replace(CLUSTER, admin_cidrs=("192.0.2.0/24",))))
    checked = check_endpoints(certificate)
    assert checked.returncode == 1
    answer, remedy = checked.stderr.splitlines()
    assert answer.startswith("Port 4444 (panel): ")
    assert remedy.startswith("The public address of this machine is not in ant-media-cluster:adminCidrs,")


def test_ports_of_nodes_that_do_not_serve_are_named(certificate: Path, balancer: Balancer) -> None:
    for node in balancer.nodes.values():
        node.stop()
    checked = check_endpoints(certificate)
    assert checked.returncode == 1
    ports = [line.split(":")[0] for line in checked.stderr.splitlines()]
    assert sorted(set(ports)) == [
        "Port 1935 (RTMP)",
        "Port 443 (publish)",
        "Port 4444 (panel)",
        "Port 5443 (play)",
    ]
