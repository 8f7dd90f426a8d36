"""Tests Prometheus' configuration, the alert rules and the dashboard's queries in docs/ with promtool."""

import json
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
import yaml

from tests.project import PROJECT
from tests.promql import RULES, list_queries, list_rules

# A Debian 13 tree for this process alone, with the test's files in its folder /run/test.
PROMTOOL = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mkdir -p "$FOLDER/root/run/test"
mount --bind "$FOLDER/files" "$FOLDER/root/run/test"
chroot "$FOLDER/root" sh -c 'cd /run/test && exec promtool "$@"' promtool "$@"
"""

STEPS = 260
"""Samples of each series. Their interval is 15 s for most faults, and 20 min for those of the certificate."""
MINUTE, DAY = 4, 72
"""Steps of 15 s in a minute, and of 20 min in a day."""
SECONDS_PER_DAY = 86_400


class Promtool:
    def __init__(self, layers: str, folder: Path) -> None:
        self._layers = layers
        self._folder = folder
        for part in ("upper", "work", "root", "files"):
            (folder / part).mkdir()

    def write(self, name: str, text: str) -> None:
        (self._folder / "files" / name).write_text(text)

    def __call__(self, *arguments: str) -> None:
        """Runs promtool, which must succeed."""
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", PROMTOOL, "promtool", *arguments],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LAYERS": self._layers,
                "FOLDER": str(self._folder),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def promtool(layers: str, tmp_path: Path) -> Promtool:
    return Promtool(layers, tmp_path)


def test_configuration_and_rules_are_valid(promtool: Promtool) -> None:
    promtool.write("prometheus.yml", (PROJECT / "docs/prometheus.yml").read_text())
    promtool.write(RULES.name, RULES.read_text())
    promtool.write("statistics-password", "secret")
    promtool("check", "config", "prometheus.yml")


def test_queries_of_the_dashboard_are_valid(promtool: Promtool) -> None:
    queries = [{"record": f"query{n}", "expr": query} for n, (_, query) in enumerate(list_queries())]
    promtool.write("queries.yml", json.dumps({"groups": [{"name": "dashboard", "rules": queries}]}))
    promtool("check", "rules", "queries.yml")


def metric(metric: str, /, **labels: str) -> str:
    return f"{metric}{{{','.join(f'{key}={value!r}' for key, value in labels.items())}}}".replace("'", '"')


def unit(state: str, name: str, machine: str) -> str:
    return metric("node_systemd_unit_state", cluster="c", instance=machine, name=name, state=state)


def server(state: str, backend: str = "edges") -> str:
    return metric("haproxy_server_status", cluster="c", proxy=backend, server="edge1", state=state)


def cpu(mode: str) -> str:
    return metric("node_cpu_seconds_total", cluster="c", instance="edge1", role="edge", cpu="0", mode=mode)


def machine_metric(name: str, machine: str, role: str, /, **labels: str) -> str:
    return metric(name, job="ant-media-machine", cluster="c", instance=machine, role=role, **labels)


HAPROXY_UP = metric("up", job="ant-media-haproxy", cluster="c", instance="load-balancer")
SERVER_UP = metric("up", job="ant-media-server", cluster="c", instance="edge1")
EDGE_UP = machine_metric("up", "edge1", "edge")
DATABASE_UP = machine_metric("up", "database", "database")
BACKEND_UP = metric("haproxy_backend_status", cluster="c", proxy="origins", state="UP")
STREAMS = [metric("antmedia_streams_live", cluster="c", instance=f"origin{n}") for n in (1, 2)]
CONNECTIONS = metric("haproxy_process_current_connections", cluster="c")
AVAILABLE_MEMORY = machine_metric("node_memory_MemAvailable_bytes", "edge1", "edge")
AVAILABLE_DISK = machine_metric("node_filesystem_avail_bytes", "edge1", "edge", mountpoint="/")
VALKEY = unit("active", "valkey-server.service", "database")
CERTIFICATE = metric("tls_certificate_not_after_timestamp_seconds", cluster="c", instance="load-balancer")
CERTBOT_FAILED = unit("failed", "certbot.service", "load-balancer")
TIMER = metric("node_systemd_timer_last_trigger_seconds", cluster="c", name="certbot.timer")


def constant(value: float) -> str:
    return f"{value}x{STEPS}"


def increase(per_step: float) -> str:
    return f"0+{per_step}x{STEPS}"


def change(before: float, after: float, steps: float) -> str:
    """A value that has changed `steps` before the end."""
    return f"{before}x{STEPS - int(steps) - 1} {after}x{int(steps)}"


def expire_in(days: float) -> str:
    """The expiry of a certificate that has `days` left at the end."""
    return constant(STEPS * 1200 + days * SECONDS_PER_DAY)


HEALTHY: Mapping[str, str] = {
    HAPROXY_UP: constant(1),
    SERVER_UP: constant(1),
    EDGE_UP: constant(1),
    DATABASE_UP: constant(1),
    server("UP"): constant(1),
    **{server(state): constant(0) for state in ("DOWN", "MAINT", "DRAIN")},
    BACKEND_UP: constant(1),
    STREAMS[0]: constant(5),
    STREAMS[1]: constant(5),
    cpu("idle"): increase(20),
    cpu("iowait"): increase(10),
    cpu("user"): increase(70),
    AVAILABLE_MEMORY: constant(30),
    machine_metric("node_memory_MemTotal_bytes", "edge1", "edge"): constant(100),
    AVAILABLE_DISK: constant(11),
    machine_metric("node_filesystem_size_bytes", "edge1", "edge", mountpoint="/"): constant(100),
    CONNECTIONS: constant(800),
    metric("haproxy_process_max_connections", cluster="c"): constant(1000),
    VALKEY: constant(1),
    CERTIFICATE: expire_in(days=29),
    CERTBOT_FAILED: constant(0),
    TIMER: increase(1200),
}
ABSENT = "_"

FAULTS: Mapping[str, tuple[Mapping[str, str], set[str]]] = {
    "nothing is wrong": ({}, set()),
    "a node fails its health checks": ({server("DOWN"): change(0, 1, 2 * MINUTE)}, {"NodeDown"}),
    "a backup server is down": ({server("DOWN", "origins"): change(0, 1, 2 * MINUTE)}, {"NodeDown"}),
    "a node has failed a health check": ({server("DOWN"): change(0, 1, MINUTE / 2)}, set()),
    "no origin is up": ({BACKEND_UP: change(1, 0, MINUTE)}, {"NoNodeInService"}),
    "an update drains a node": ({server("DRAIN"): change(0, 1, 50 * MINUTE)}, set()),
    "an update left a node drained": ({server("MAINT"): change(0, 1, 61 * MINUTE)}, {"NodeOutOfService"}),
    "a server sends no metrics": ({SERVER_UP: change(1, 0, 6 * MINUTE)}, {"MetricsAbsent"}),
    "a machine sends no metrics": ({EDGE_UP: change(1, 0, 6 * MINUTE)}, {"MetricsAbsent"}),
    "an origin loses its streams": ({STREAMS[0]: change(5, 0, 2 * MINUTE)}, set()),
    "both origins lose most of their streams": (
        {stream: change(5, 2, 2 * MINUTE) for stream in STREAMS},
        {"StreamsLost"},
    ),
    "both origins lose their metrics": (
        dict.fromkeys(STREAMS, f"5x{STEPS - 9} stale"),
        {"StreamsLost"},
    ),
    "the only stream ends": ({STREAMS[0]: change(1, 0, 2 * MINUTE), STREAMS[1]: constant(0)}, set()),
    "a node is at its CPU limit": ({cpu("idle"): increase(14), cpu("user"): increase(76)}, {"CpuLimit"}),
    "a node is at its memory limit": ({AVAILABLE_MEMORY: constant(25)}, {"MemoryLimit"}),
    "a disk is nearly full": ({AVAILABLE_DISK: constant(9)}, {"DiskFull"}),
    "the load balancer is near its limit": ({CONNECTIONS: constant(801)}, {"BalancerConnections"}),
    "the registry has ended": ({VALKEY: change(1, 0, 2 * MINUTE)}, {"RegistryDown"}),
    "the registry's machine is gone": (
        {DATABASE_UP: change(1, 0, 2 * MINUTE), VALKEY: ABSENT},
        {"RegistryDown"},
    ),
    "the load balancer is gone": ({HAPROXY_UP: change(1, 0, 16 * MINUTE)}, {"BalancerMetricsAbsent"}),
    "nothing was ever discovered": ({HAPROXY_UP: ABSENT}, {"BalancerMetricsAbsent"}),
    "the certificate has no metrics": ({CERTIFICATE: ABSENT}, {"BalancerMetricsAbsent"}),
}
SLOW_FAULTS: Mapping[str, tuple[Mapping[str, str], set[str]]] = {
    "nothing has been wrong for days": ({}, set()),
    "the certificate was not renewed": ({CERTIFICATE: expire_in(days=20)}, {"CertificateNotRenewed"}),
    "the certificate expires": (
        {CERTIFICATE: expire_in(days=6)},
        {"CertificateNotRenewed", "CertificateExpires"},
    ),
    "a renewal has failed": ({CERTBOT_FAILED: change(0, 1, 23 / 24 * DAY)}, set()),
    "renewals fail": ({CERTBOT_FAILED: change(0, 1, 1.1 * DAY)}, {"CertificateRenewalFailed"}),
    "certbot does not run": ({TIMER: constant(0)}, {"CertificateRenewalNotRun"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_alerts_that_fire_when(promtool: Promtool, fault: str) -> None:
    check_firing_alerts(promtool, 15, *FAULTS[fault])


@pytest.mark.parametrize("fault", SLOW_FAULTS)
def test_alerts_about_the_certificate_that_fire_when(promtool: Promtool, fault: str) -> None:
    check_firing_alerts(promtool, 1200, *SLOW_FAULTS[fault])


def check_firing_alerts(
    promtool: Promtool, step: int, changes: Mapping[str, str], firing: Collection[str]
) -> None:
    """Compares the alerts that fire at the end with `firing`. `step` is the interval of samples and rules in seconds."""
    series = {name: values for name, values in {**HEALTHY, **changes}.items() if values != ABSENT}
    case = {
        "rule_files": [RULES.name],
        "evaluation_interval": f"{step}s",
        "tests": [
            {
                "interval": f"{step}s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{step * STEPS}s",
                        "exp_samples": [
                            {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(firing)
                        ],
                    }
                ],
            }
        ],
    }
    promtool.write(RULES.name, RULES.read_text())
    promtool.write("case.yml", yaml.safe_dump(case))
    promtool("test", "rules", "case.yml")


def test_each_alert_has_a_fault() -> None:
    alerts = {rule["alert"] for rule in list_rules() if "alert" in rule}
    faults = (*FAULTS.values(), *SLOW_FAULTS.values())
    assert alerts == set[str]().union(*(firing for _, firing in faults))
