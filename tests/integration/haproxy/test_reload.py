"""A new configuration costs nobody a connection."""

import threading

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import echoes, https, open_rtmp, open_websocket
from tests.integration.haproxy.conftest import CLUSTER, GROWN, Balancer


def workers(balancer: Balancer) -> int:
    """Alive, the one that was replaced included."""
    return sum(
        " worker " in f" {' '.join(line.split())} "
        for line in balancer.haproxy.master("show proc").splitlines()
    )


def test_a_reload_adds_an_edge_and_cuts_no_session(balancer: Balancer) -> None:
    websocket, _ = open_websocket(443, "/LiveApp/websocket?target=edge")
    rtmp, _ = open_rtmp()
    failures: list[Exception | int] = []
    over = threading.Event()

    def visit() -> None:
        while not over.is_set():
            try:
                status = https(443, "/LiveApp/").status
                if status != 200:
                    failures.append(status)
            except OSError as error:
                failures.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    try:
        balancer.haproxy.reload(render_haproxy_cfg(GROWN))
        over.wait(1)
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()

    assert failures == []
    assert "edge3" in {https(5443, "/LiveApp/").node for _ in range(12)}
    assert workers(balancer) == 2
    with websocket, rtmp:
        assert echoes(websocket)
        assert echoes(rtmp)


def test_statistics_are_there_after_a_reload(balancer: Balancer) -> None:
    """Their TLS half listens on an abstract socket, which the new worker takes over."""
    for _ in range(2):
        balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
        assert https(6080, "/haproxy_stats").status == 401


def test_the_old_worker_leaves_with_its_last_connection(balancer: Balancer) -> None:
    over = threading.Event()
    for _ in range(150):
        if workers(balancer) == 1:
            break
        over.wait(0.1)
    assert workers(balancer) == 1


def test_a_configuration_that_is_refused_leaves_the_old_one_serving(balancer: Balancer) -> None:
    answer = balancer.haproxy.try_reload("global\n    nonsense\n")
    assert answer.startswith("Success=0")
    assert "unknown keyword 'nonsense'" in answer
    assert https(443, "/LiveApp/").status == 200
