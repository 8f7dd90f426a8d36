"""Tests the rendered text of haproxy.cfg. tests/integration/haproxy tests it with HAProxy."""

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.haproxy_config import (
    FILE_LIMIT,
    HAProxyConfig,
    Server,
    calculate_connection_limits,
    render_haproxy_cfg,
)

GOLDEN = Path(__file__).parent / "haproxy"


def config_of(origins: int, edges: int) -> HAProxyConfig:
    return HAProxyConfig(
        domain="live.example.com",
        origins=tuple(Server(f"origin{n}", f"10.0.{n // 200}.{8 + n % 200}") for n in range(1, origins + 1)),
        edges=tuple(Server(f"edge{n}", f"10.1.{n // 200}.{8 + n % 200}") for n in range(1, edges + 1)),
        applications=("LiveApp", "WebRTCAppEE", "live"),
        admin_cidrs=("203.0.113.20/32", "198.51.100.0/24"),
        rtmps_port=1936,
        memory_mib=4096,
        hsts_max_age=0,
    )


def server_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.match(r" +server (origin|edge)", line)]


@pytest.mark.parametrize(("origins", "edges"), [(1, 0), (1, 1), (2, 2)])
def test_rendered_file_equals_the_golden_file(origins: int, edges: int) -> None:
    """After an intended change run UPDATE_GOLDEN=1 pytest …/test_haproxy_config.py, and review the diff."""
    golden = GOLDEN / f"{origins}-origins-{edges}-edges.cfg"
    text = render_haproxy_cfg(config_of(origins, edges))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@given(st.integers(1, 12), st.integers(1, 40))
def test_another_edge_only_adds_server_lines(origins: int, edges: int) -> None:
    before, after = (
        render_haproxy_cfg(config_of(origins, edges)),
        render_haproxy_cfg(config_of(origins, edges + 1)),
    )
    changes = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-?"]
    # In the backends origins, edges, whip and whep.
    assert len(changes) == 4
    assert all(re.match(rf"\+ +server edge{edges + 1} ", line) for line in changes)


@given(st.integers(1, 12), st.integers(0, 40))
def test_each_node_has_one_health_check_and_is_tracked_elsewhere(origins: int, edges: int) -> None:
    config = config_of(origins, edges)
    lines = server_lines(render_haproxy_cfg(config))
    checked = [line.split()[1] for line in lines if " check " in line]
    assert sorted(checked) == sorted(node.name for node in (*config.origins, *config.edges))
    assert all(" track " in line for line in lines if " check " not in line)


def test_rtmps_port_is_bound_unless_it_is_0() -> None:
    assert "    bind :2936 " in render_haproxy_cfg(replace(config_of(1, 1), rtmps_port=2936))
    assert "rtmps" not in render_haproxy_cfg(replace(config_of(1, 1), rtmps_port=0))


@pytest.mark.parametrize(("setting", "limit"), [(None, 16384), (500, 500)])
def test_one_client_gets_half_of_the_connections_or_what_the_setting_allows(
    setting: int | None, limit: int
) -> None:
    text = render_haproxy_cfg(replace(config_of(2, 2), connections_per_client=setting))
    assert "maxconn 32768" in text
    # publish, play and panel have a common one.
    assert text.count(f"tcp-request connection reject if {{ sc0_conn_cur gt {limit} }}") == 5


def test_without_edges_no_directive_names_them() -> None:
    directives = [
        line for line in render_haproxy_cfg(config_of(2, 0)).splitlines() if not line.strip().startswith("#")
    ]
    assert not [line for line in directives if "edge" in line]


@given(st.integers(512, 4 * 1024 * 1024))
def test_connection_limit_fits_the_file_limit_of_systemd(memory_mib: int) -> None:
    limits = calculate_connection_limits(memory_mib)
    assert 2 * limits.maxconn < limits.ulimit_n <= FILE_LIMIT
    assert limits.maxconn * 64 <= memory_mib * 1024 / 2


def test_connection_limit_grows_with_memory() -> None:
    assert [calculate_connection_limits(gib * 1024).maxconn for gib in (1, 2, 4, 16)] == [
        8192,
        16384,
        32768,
        131072,
    ]
    assert calculate_connection_limits(1024).ulimit_n < 20000


@given(st.text(max_size=20))
def test_values_in_the_file_are_single_words_or_refused(word: str) -> None:
    accepted = re.compile(r"[A-Za-z0-9._-]+")
    for config in (
        lambda: replace(config_of(1, 1), domain=word),
        lambda: replace(config_of(1, 1), applications=(word,)),
        lambda: replace(config_of(1, 1), origins=(Server(word, "10.0.0.8"),)),
        lambda: replace(config_of(1, 1), origins=(Server("origin1", word),)),
    ):
        try:
            config()
        except ValueError:
            continue
        assert accepted.fullmatch(word)


@pytest.mark.parametrize("application", ["", ".", "..", "LiveApp/rest", "Live App", "LiveApp\n"])
def test_application_is_one_path_segment(application: str) -> None:
    with pytest.raises(ValueError, match="application"):
        replace(config_of(1, 1), applications=(application,))


def test_missing_origin_and_duplicate_node_names_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one origin"):
        config_of(0, 1)
    with pytest.raises(ValueError, match="repeat"):
        replace(config_of(1, 0), edges=(Server("origin1", "10.0.0.9"),))
