"""A configuration that does not serve never takes the place of one that does."""

from collections.abc import Callable, Iterator

import pytest

from tests.e2e.clients import Visitor, WebSocket
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, Cluster

REDIRECT = "    http-request redirect prefix https://%[req.hdr(Host),host_only] code 301 unless acme\n"


def with_nonsense(text: str) -> str:
    return text + "\nfrontend nonsense from http\n    bind :81\n    no-such-keyword at all\n"


def on_a_port_that_sshd_has(text: str) -> str:
    return text + "\nfrontend occupied from http\n    bind :22\n    http-request return status 200\n"


def without_the_redirect(text: str) -> str:
    assert REDIRECT in text
    return text.replace(REDIRECT, "    http-request return status 200 unless acme\n")


@pytest.fixture(scope="module")
def connection(operator: Visitor) -> Iterator[WebSocket]:
    """Open from before the first attempt until after the last."""
    connection = operator.open_websocket(f"https://{DOMAIN}/LiveApp/websocket")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("change", "valid", "says"),
    [
        (with_nonsense, False, "unknown keyword 'no-such-keyword'"),
        (on_a_port_that_sshd_has, True, "cannot bind socket"),
        (without_the_redirect, True, "Port 80 does not redirect to HTTPS."),
    ],
)
def test_a_configuration_that_does_not_serve_leaves_the_old_one_serving_and_says_why(
    cluster: Cluster,
    operator: Visitor,
    connection: WebSocket,
    change: Callable[[str], str],
    valid: bool,
    says: str,
) -> None:
    def on_balancer(*command: str, text: str | None = None) -> tuple[int, str]:
        done = cluster.shell("load-balancer", *command, input=text)
        return done.status, done.output

    before = on_balancer("cat", "/etc/haproxy/haproxy.cfg")
    folder = on_balancer("ls", "/etc/haproxy")
    changed = change(before[1])
    check = ["haproxy", "-c", "-f", "/dev/stdin", "-f", "/etc/haproxy/credentials.cfg"]
    assert (on_balancer(*check, text=changed)[0] == 0) == valid  # the case is the one that its name says

    status, said = on_balancer(f"{SCRIPTS}/apply-haproxy-config.sh", text=changed)
    assert status != 0
    assert says in said
    assert on_balancer("cat", "/etc/haproxy/haproxy.cfg") == before
    assert set(on_balancer("ls", "/etc/haproxy")[1].split()) - set(folder[1].split()) <= {
        "haproxy.cfg.previous"
    }
    assert operator.get(f"http://{DOMAIN}/").redirect == (301, f"https://{DOMAIN}/")
    assert operator.get(f"https://{DOMAIN}/LiveApp/").node
    assert on_balancer("systemctl", "is-active", "haproxy") == (0, "active\n")
    assert connection.answers()


def test_the_text_that_serves_can_be_applied_again(cluster: Cluster) -> None:
    text: str = cluster.outputs()["haproxy_cfg"]
    done = cluster.shell("load-balancer", f"{SCRIPTS}/apply-haproxy-config.sh", input=text)
    assert (done.status, done.stdout) == (0, "HAProxy serves the new configuration\n")
