"""A reload keeps all connections."""

import threading

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import echoes, open_rtmp, open_websocket, request_https
from tests.integration.haproxy.conftest import CLUSTER, GROWN, Balancer


def count_workers(balancer: Balancer) -> int:
    """Counts the running workers, old ones included."""
    return sum(
        " worker " in f" {' '.join(line.split())} "
        for line in balancer.haproxy.ask_master("show proc").splitlines()
    )


def test_reload_adds_an_edge_and_keeps_all_sessions(balancer: Balancer) -> None:
    websocket, _ = open_websocket(443, "/LiveApp/websocket?target=edge")
    rtmp, _ = open_rtmp()
    failures: list[Exception | int] = []
    stopped = threading.Event()

    def send_requests() -> None:
        while not stopped.is_set():
            try:
                status = request_https(443, "/LiveApp/").status
                if status != 200:
                    failures.append(status)
            except OSError as error:
                failures.append(error)

    clients = [threading.Thread(target=send_requests) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        balancer.haproxy.reload(render_haproxy_cfg(GROWN))
        stopped.wait(1)
    finally:
        stopped.set()
        for client in clients:
            client.join()

    assert failures == []
    assert "edge3" in {request_https(5443, "/LiveApp/").node for _ in range(12)}
    assert count_workers(balancer) == 2
    with websocket, rtmp:
        assert echoes(websocket)
        assert echoes(rtmp)


def test_statistics_work_after_a_reload(balancer: Balancer) -> None:
    """Their TLS frontend listens on an abstract socket, which the new worker inherits."""
    for _ in range(2):
        balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
        assert request_https(6080, "/haproxy_stats").status == 401


def test_old_worker_exits_with_its_last_connection(balancer: Balancer) -> None:
    stopped = threading.Event()
    for _ in range(150):
        if count_workers(balancer) == 1:
            break
        stopped.wait(0.1)
    assert count_workers(balancer) == 1


def test_rejected_configuration_keeps_the_previous_one(balancer: Balancer) -> None:
    answer = balancer.haproxy.try_reload("global\n    nonsense\n")
    assert answer.startswith("Success=0")
    assert "unknown keyword 'nonsense'" in answer
    assert request_https(443, "/LiveApp/").status == 200
