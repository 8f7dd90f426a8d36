"""An HAProxy configuration that fails never replaces one that works."""

import shlex
from collections.abc import Callable, Iterator

import pytest

from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.e2e.clients import Client, WebSocket
from tests.e2e.running_cluster import DOMAIN, Cluster, wait_until

REDIRECT = "    http-request redirect prefix https://%[req.hdr(Host),host_only] code 301 unless acme\n"


def add_unknown_keyword(config: str) -> str:
    return config + "\nfrontend nonsense from http\n    bind :81\n    no-such-keyword at all\n"


def bind_port_of_sshd(config: str) -> str:
    return config + "\nfrontend occupied from http\n    bind :22\n    http-request return status 200\n"


def remove_redirect(config: str) -> str:
    assert REDIRECT in config
    return config.replace(REDIRECT, "    http-request return status 200 unless acme\n")


@pytest.fixture(scope="module")
def websocket(operator_client: Client) -> Iterator[WebSocket]:
    """Stays open during all attempts."""
    websocket = operator_client.open_websocket(f"https://{DOMAIN}/LiveApp/websocket")
    yield websocket
    websocket.close()


@pytest.mark.parametrize(
    ("change", "is_valid", "message"),
    [
        (add_unknown_keyword, False, "unknown keyword 'no-such-keyword'"),
        (bind_port_of_sshd, True, "Port 22 of the new configuration cannot be bound: Address already in use"),
        (remove_redirect, True, "Port 80 does not redirect to HTTPS."),
    ],
)
def test_failed_configuration_is_rolled_back_and_the_reason_printed(
    cluster: Cluster,
    operator_client: Client,
    websocket: WebSocket,
    change: Callable[[str], str],
    is_valid: bool,
    message: str,
) -> None:
    def read_config() -> str:
        return cluster.run_on("load-balancer", "cat", "/etc/haproxy/haproxy.cfg").check()

    def list_files() -> set[str]:
        return set(cluster.run_on("load-balancer", "ls", "/etc/haproxy").check().split())

    config, files = read_config(), list_files()
    changed = change(config)
    validate = ("haproxy", "-c", "-f", "/dev/stdin", "-f", "/etc/haproxy/credentials.cfg")
    assert (cluster.run_on("load-balancer", *validate, input=changed).exit_code == 0) == is_valid

    applied = cluster.apply_haproxy_config(changed)
    assert applied.exit_code != 0
    assert message in applied.output
    assert read_config() == config
    assert list_files() == files
    assert operator_client.get(f"http://{DOMAIN}/").redirect == (301, f"https://{DOMAIN}/")
    assert operator_client.get(f"https://{DOMAIN}/LiveApp/").node
    assert cluster.run_on("load-balancer", "systemctl", "is-active", "haproxy").check() == "active\n"
    assert websocket.responds_to_ping()


@pytest.mark.parametrize("reboot", [False, True])
def test_killed_apply_is_rolled_back_also_by_a_start_of_haproxy(
    cluster: Cluster, operator_client: Client, reboot: bool
) -> None:
    """The apply is killed after its reload. Then a unit rolls it back, or a start of HAProxy without that unit."""
    config = cluster.run_on("load-balancer", "cat", "/etc/haproxy/haproxy.cfg").check()
    kill = """
        systemd-run() { [[ $REBOOT ]] || command systemd-run "$@"; }
        trap '[[ $BASH_COMMAND != verify_ports* ]] || { kill -KILL $$; }' DEBUG"""
    apply = f"REBOOT={'1' if reboot else ''} BASH_ENV=<(echo {shlex.quote(kill)}) {INSTALLED_SCRIPTS}/apply-haproxy-config.sh"
    killed = cluster.run_on("load-balancer", "bash", "-c", apply, input=remove_redirect(config))
    assert killed.exit_code == 137, killed.output
    if reboot:
        # The old worker may still answer.
        wait_until(lambda: operator_client.get(f"http://{DOMAIN}/").status == 200)
        cluster.run_on("load-balancer", "systemctl", "restart", "haproxy").check()
    wait_until(lambda: operator_client.get(f"http://{DOMAIN}/").redirect == (301, f"https://{DOMAIN}/"))
    assert cluster.run_on("load-balancer", "cat", "/etc/haproxy/haproxy.cfg").check() == config
    assert cluster.apply_haproxy_config(config).exit_code == 0


def test_current_configuration_can_be_applied_again(cluster: Cluster) -> None:
    applied = cluster.apply_haproxy_config(cluster.get_outputs()["haproxy_cfg"])
    assert (applied.exit_code, applied.stdout) == (0, "HAProxy serves the new configuration\n")
