"""HAProxy 3.0 accepts and runs the file of every cluster that the settings allow."""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings

from cluster.haproxy_config import HAProxyConfig, Server, render_haproxy_cfg
from cluster.plan import plan_cluster, plan_haproxy
from cluster.settings.model import SECRETS
from cluster.settings.reader import read_settings
from tests.integration.haproxy.conftest import CLUSTER
from tests.integration.haproxy.haproxy_process import HAProxy
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.valid_settings import MOST_EDGES, MOST_ORIGINS, host_name, valid_settings

SMALLEST_MEMORY_MIB = 512
# systemd's default for a service. HAProxy raises it to ulimit-n.
SOFT_FILE_LIMIT = 1024


def plan_config(raw: dict[str, str]) -> HAProxyConfig:
    valid = read_settings(SECRET_VALUES | raw, SECRETS, datetime.now(UTC))
    return plan_haproxy(valid, plan_cluster("cluster", valid).addresses, SMALLEST_MEMORY_MIB)


@contextmanager
def soft_file_limit(limit: int) -> Generator[None]:
    """Limits the open files of processes that are started meanwhile. They may raise the limit, as under systemd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(raw=valid_settings())
def test_haproxy_accepts_the_file_of_all_valid_settings(
    raw: dict[str, str], layers: str, certificate: Path
) -> None:
    # tmp_path would be the same folder for all examples.
    with TemporaryDirectory() as folder:
        haproxy = HAProxy(layers, Path(folder), certificate)
        assert haproxy.validate(render_haproxy_cfg(plan_config(raw))) == (0, "")


def test_haproxy_starts_with_the_largest_cluster(layers: str, certificate: Path, tmp_path: Path) -> None:
    servers = [Server(f"node{n}", f"10.1.{n // 200}.{8 + n % 200}") for n in range(MOST_ORIGINS + MOST_EDGES)]
    largest = replace(
        CLUSTER,
        domain=host_name("live", 253),
        origins=tuple(servers[:MOST_ORIGINS]),
        edges=tuple(servers[MOST_ORIGINS:]),
        memory_mib=SMALLEST_MEMORY_MIB,
    )
    haproxy = HAProxy(layers, tmp_path, certificate)
    with soft_file_limit(SOFT_FILE_LIMIT):
        haproxy.start(render_haproxy_cfg(largest))
    haproxy.stop()
