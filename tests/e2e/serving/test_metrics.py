"""A Prometheus server in `monitoringCidrs` gets the metrics of every machine through port 6080."""

import json
from collections.abc import Mapping

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from sandbox.cloud import addresses
from tests.e2e.clients import Client, SandboxInternet, basic_auth_header
from tests.e2e.running_cluster import DOMAIN, Cluster
from tests.promql import find_metrics, list_queries, list_rules

NODES = ("origin1", "origin2", "edge1", "edge2")
MACHINES = ("load-balancer", *NODES, "database")


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, internet: SandboxInternet) -> Client:
    """A client that is in `monitoringCidrs` and not in `adminCidrs`."""
    address = cluster.check_output(*cluster.operator_command("getent", "hosts", DOMAIN)).split()[0]
    return Client(lambda port: internet.connect(address, port, addresses.MONITOR))


@pytest.fixture(scope="module")
def scraped(cluster: Cluster, prometheus: Client) -> Mapping[str, list[Metric]]:
    """The metrics of each path."""
    login = basic_auth_header("admin", cluster.get_config("statisticsPassword"))

    def get(path: str) -> bytes:
        response = prometheus.get(f"https://{DOMAIN}:6080{path}", login)
        assert response.status == 200, path
        return response.body

    groups = json.loads(get("/metrics/targets"))
    machines = {name: group["labels"]["role"] for group in groups for name in group["targets"]}
    assert set(machines) == set(MACHINES)
    paths = ["/metrics", *(f"/metrics/node/{name}" for name in machines)]
    paths += [f"/metrics/ant-media/{name}" for name, role in machines.items() if role in ("origin", "edge")]
    return {path: [*text_string_to_metric_families(get(path).decode())] for path in paths}


def test_metrics_come_from_the_machine_of_their_path(
    cluster: Cluster, scraped: Mapping[str, list[Metric]]
) -> None:
    for name, machine in cluster.list_machines().items():
        (uname,) = (m for m in scraped[f"/metrics/node/{name}"] if m.name == "node_uname_info")
        assert uname.samples[0].labels["nodename"] == machine.hostname
        if name in NODES:
            (live,) = (m for m in scraped[f"/metrics/ant-media/{name}"] if m.name == "antmedia_streams_live")
            assert live.samples[0].labels["antmedia_private_ip"] == machine.private_address


def test_every_metric_of_the_rules_and_the_dashboard_exists(scraped: Mapping[str, list[Metric]]) -> None:
    names = {sample.name for families in scraped.values() for family in families for sample in family.samples}
    recorded = {rule["record"] for rule in list_rules() if "record" in rule}
    used = set[str]().union(
        *(find_metrics(rule["expr"]) for rule in list_rules()),
        *(find_metrics(query) for _, query in list_queries()),
    )
    assert used - names - recorded - {"up"} == set()


def test_states_of_the_services_are_among_the_metrics(scraped: Mapping[str, list[Metric]]) -> None:
    expected = {name: {"antmedia.service"} for name in NODES} | {
        "database": {"valkey-server.service"},
        "load-balancer": {"certbot.service", "certbot.timer", "haproxy.service"},
    }
    for name, units in expected.items():
        (state,) = (m for m in scraped[f"/metrics/node/{name}"] if m.name == "node_systemd_unit_state")
        assert {sample.labels["name"] for sample in state.samples} == units
        active = {s.labels["name"] for s in state.samples if s.labels["state"] == "active" and s.value}
        assert active >= units - {"certbot.service"}
