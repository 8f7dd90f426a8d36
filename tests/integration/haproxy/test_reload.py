"""A reload keeps all connections."""

import contextlib
import threading

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import (
    connect_tls,
    echoes,
    open_rtmp,
    open_websocket,
    request_https,
    send_request,
)
from tests.integration.haproxy.conftest import CLUSTER, GROWN, Balancer
from tests.integration.haproxy.haproxy_process import DOMAIN


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


def test_idle_connection_closes_with_its_next_response(balancer: Balancer) -> None:
    """A client that sends a request while HAProxy closes an idle connection has lost it, unless it repeats it."""
    head = f"GET /LiveApp/ HTTP/1.1\r\nHost: {DOMAIN}\r\n"
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect_tls(port)) for port in (443, 5443) * 10]
        for connection in connections:
            assert send_request(connection, head).header("Connection") is None
        balancer.haproxy.reload(render_haproxy_cfg(GROWN))
        answers = [send_request(connection, head) for connection in connections]
    assert {(answer.status, answer.header("Connection")) for answer in answers} == {(200, "close")}


def test_statistics_work_after_a_reload(balancer: Balancer) -> None:
    """Their TLS frontend listens on an abstract socket, which the new worker inherits."""
    for _ in range(2):
        balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
        assert request_https(6080, "/haproxy_stats").status == 401


def test_old_worker_exits_with_its_last_connection(balancer: Balancer) -> None:
    stopped = threading.Event()
    for _ in range(600):
        if count_workers(balancer) == 1:
            break
        stopped.wait(0.1)
    assert count_workers(balancer) == 1


def test_rejected_configuration_keeps_the_previous_one(balancer: Balancer) -> None:
    answer = balancer.haproxy.try_reload("global\n    nonsense\n")
    assert answer.startswith("Success=0")
    assert "unknown keyword 'nonsense'" in answer
    assert request_https(443, "/LiveApp/").status == 200
