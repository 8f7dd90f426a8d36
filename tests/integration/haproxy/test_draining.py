"""drain-server.sh and return-server.sh, and servers' states across reloads. The tests share one HAProxy."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from cluster.haproxy_config import render_haproxy_cfg
from tests.integration.haproxy.clients import echoes, is_closed, open_rtmp, open_websocket, request_https
from tests.integration.haproxy.conftest import CLUSTER, GROWN, Balancer

STICKY = "Cookie: AMS_EDGE=edge1\r\n"


def wait_until_up(balancer: Balancer) -> None:
    """Waits for the first health checks too: before them a server counts as up."""
    assert "servers pass" in balancer.haproxy.run_script("wait-for-servers.sh", "digest")


def states(balancer: Balancer, name: str) -> set[str]:
    found = balancer.haproxy.server_states()
    return {state.split(" (")[0] for server, state in found.items() if server.split("/")[1] == name}


def serving_edges(headers: str = "") -> set[str]:
    return {request_https(5443, "/LiveApp/", headers).node for _ in range(8)}


def wait_for_line(script: "subprocess.Popen[str]", text: str) -> str:
    """Returns the first line of the script's output that contains `text`. It prints a line every 5 s while it waits."""
    assert script.stdout
    for line in script.stdout:
        if text in line:
            return line
    raise AssertionError(f"the script ended without: {text}")


@contextmanager
def viewing() -> Generator[list[int]]:
    """Requests a page of the edges again and again, with and without a cookie. Yields the statuses of the responses."""
    statuses: list[int] = []
    stopped = threading.Event()

    def view(cookie: str) -> None:
        while not stopped.wait(0.01):
            statuses.append(request_https(5443, "/LiveApp/", cookie).status)

    viewers = [threading.Thread(target=view, args=(cookie,)) for cookie in ("", STICKY)]
    for viewer in viewers:
        viewer.start()
    try:
        yield statuses
    finally:
        stopped.set()
        for viewer in viewers:
            viewer.join()


def test_server_without_connections_leaves_at_once_and_returns(balancer: Balancer) -> None:
    wait_until_up(balancer)
    started = time.monotonic()
    output = balancer.haproxy.run_script("drain-server.sh", "edge1", "20", "setup 2")
    assert time.monotonic() - started < 20  # the time that the script grants connections
    assert output.splitlines()[-1] == "edge1 is out of service; it has no connections"
    assert states(balancer, "edge1") == {"MAINT"}
    assert serving_edges() == serving_edges(STICKY) == {"edge2"}
    # Draining it again changes nothing.
    assert "it has no connections" in balancer.haproxy.run_script("drain-server.sh", "edge1", "20", "setup 2")
    timers = (balancer.haproxy.root / "run/timers").read_text()
    assert "--unit=return-server-edge1 --on-active=3620" in timers
    for _ in range(2):
        assert balancer.haproxy.run_script("return-server.sh", "edge1") == "edge1 is in service\n"
    assert states(balancer, "edge1") == {"UP"}
    assert serving_edges(STICKY) == {"edge1"}


def test_draining_waits_for_connections_of_all_workers_and_prints_how_many_are_left(
    balancer: Balancer,
) -> None:
    old_websocket, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))
    websocket, node = open_websocket(5443, "/LiveApp/websocket", STICKY)
    assert node == "edge1"
    drain = balancer.haproxy.start_script("drain-server.sh", "edge1", "300", "setup 2")
    assert wait_for_line(drain, "2 connections").startswith("edge1 has 2 connections; waiting up to ")
    # New clients go elsewhere, its own stay.
    assert serving_edges() == {"edge2"}
    assert serving_edges(STICKY) == {"edge1"}
    with old_websocket, websocket:
        assert echoes(old_websocket)
        assert echoes(websocket)
        websocket.close()
        assert wait_for_line(drain, "1 connections").startswith("edge1 has 1 connections; waiting")
    assert wait_for_line(drain, "out of") == "edge1 is out of service; it has no connections\n"
    assert drain.wait(60) == 0
    balancer.haproxy.run_script("return-server.sh", "edge1")


def test_draining_ends_after_the_given_seconds_and_closes_the_connections_of_all_workers(
    balancer: Balancer,
) -> None:
    old, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    rtmp, node = open_rtmp()
    balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))
    new, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    with old, new, rtmp:
        output = balancer.haproxy.run_script("drain-server.sh", "edge1", "1", "setup 2")
        assert output.endswith("edge1 is out of service; its last 2 connections were closed\n")
        # Closed, not left to hang: the clients reconnect at once.
        assert is_closed(old)
        assert is_closed(new)
        assert echoes(rtmp)
        assert "its last 1 connections" in balancer.haproxy.run_script(
            "drain-server.sh", node, "0", "setup 2"
        )
        assert is_closed(rtmp)
    for server in ("edge1", node):
        balancer.haproxy.run_script("return-server.sh", server)


def test_request_under_way_ends_before_connections_are_closed(balancer: Balancer) -> None:
    with ThreadPoolExecutor() as pool:
        request = pool.submit(request_https, 5443, "/LiveApp/?seconds=1", STICKY)
        while "GET /LiveApp/?seconds=1" not in balancer.nodes["edge1"].targets:
            time.sleep(0.05)
        assert "no connections" in balancer.haproxy.run_script("drain-server.sh", "edge1", "0", "setup 2")
        assert request.result().node == "edge1"
    balancer.haproxy.run_script("return-server.sh", "edge1")


def test_nobody_waits_for_a_node_that_is_down(balancer: Balancer) -> None:
    websocket, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    balancer.nodes["edge1"].liveness = 500
    while states(balancer, "edge1") != {"DOWN"}:
        time.sleep(0.05)
    with websocket:
        output = balancer.haproxy.run_script("drain-server.sh", "edge1", "3000", "setup 2")
        assert output.splitlines() == [
            "edge1 is down, so nobody waits for its connections",
            "edge1 is out of service; its last 1 connections were closed",
        ]
        assert is_closed(websocket)
    balancer.nodes["edge1"].liveness = 200
    balancer.haproxy.run_script("return-server.sh", "edge1")


def test_node_that_does_not_restart_is_not_drained(balancer: Balancer) -> None:
    drain = ("drain-server.sh", "edge1", "3000")
    websocket, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    balancer.haproxy.run_script("return-server.sh", "edge1", "setup 1")
    with websocket:
        for seconds in ("3000", "0"):
            output = balancer.haproxy.run_script("drain-server.sh", "edge1", seconds, "setup 1")
            assert output == "edge1 does not restart, so it stays in service\n"
        assert echoes(websocket)
        interrupted = balancer.haproxy.start_script(*drain, "setup 2")
        assert interrupted.stdout
        assert "1 connections" in interrupted.stdout.readline()
        # With its children, which would take the server away once more.
        os.killpg(interrupted.pid, signal.SIGKILL)
    # The settings were taken back after the interruption. By then the node may have restarted.
    assert "out of service" in balancer.haproxy.run_script(*drain, "setup 1")
    balancer.haproxy.run_script("return-server.sh", "edge1", "setup 1")
    assert states(balancer, "edge1") == {"UP"}


def test_script_of_a_killed_update_does_not_take_the_server_away_again(balancer: Balancer) -> None:
    websocket, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    with websocket:
        orphan = balancer.haproxy.start_script("drain-server.sh", "edge1", "3000", "setup 2")
        assert orphan.stdout
        assert "1 connections" in orphan.stdout.readline()
        balancer.haproxy.run_script("return-server.sh", "edge1")
        assert orphan.wait(60) == 1
        assert "Another update has taken over edge1." in orphan.stdout.read()
        assert states(balancer, "edge1") == {"UP"}
        assert echoes(websocket)


def test_removed_servers_leave_together_before_the_configuration_does(balancer: Balancer) -> None:
    """Down to one origin and no edge. Connections of old workers are closed too."""
    old, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))
    stay, _ = open_websocket(443, "/LiveApp/websocket", "Cookie: AMS_ORIGIN=origin1\r\n")
    with old, stay:
        with viewing() as statuses:
            output = balancer.haproxy.run_script("drain-removed-servers.sh", "2", "origin1")
            lines = output.splitlines()
            assert {line for line in lines if "out of service" in line} == {
                "edge1 is out of service; its last 1 connections were closed",
                "edge2 is out of service; it has no connections",
                "origin2 is out of service; it has no connections",
            }
            assert is_closed(old)
            balancer.haproxy.reload_with_script(
                render_haproxy_cfg(replace(CLUSTER, origins=CLUSTER.origins[:1], edges=()))
            )
        assert set(statuses) == {200}
        assert echoes(stay)
        assert (
            balancer.haproxy.run_script("drain-removed-servers.sh", "2", "origin1")
            == "No server is removed\n"
        )
    balancer.haproxy.reload_with_script(render_haproxy_cfg(CLUSTER))


def test_interrupted_removal_is_undone_when_the_settings_are_taken_back(balancer: Balancer) -> None:
    wait_until_up(balancer)
    balancer.haproxy.run_script("drain-removed-servers.sh", "0", "origin1", "origin2", "edge1")
    assert states(balancer, "edge2") == {"MAINT"}
    balancer.haproxy.run_script("drain-removed-servers.sh", "0", "origin1", "origin2", "edge1", "edge2")
    assert "edge2 was left out of service" in balancer.haproxy.run_script("wait-for-servers.sh", "digest")
    assert states(balancer, "edge2") == {"UP"}


def test_returned_server_gets_no_request_before_it_passes_its_health_check(balancer: Balancer) -> None:
    balancer.haproxy.run_script("drain-server.sh", "edge1", "0", "setup 2")
    node = balancer.nodes["edge1"]
    node.application_status = dict.fromkeys(CLUSTER.applications, 403)
    returning = balancer.haproxy.start_script("return-server.sh", "edge1")
    early: list[int] = []
    while states(balancer, "edge1") != {"DOWN"}:
        early.append(request_https(5443, "/LiveApp/", STICKY).status)
    # HAProxy carries out the script's commands one after the other: a request may come between two. Its health check takes longer.
    assert early.count(403) < 5
    for _ in range(30):
        assert request_https(5443, "/LiveApp/", STICKY).status == 200
        time.sleep(0.05)
    assert returning.poll() is None
    assert states(balancer, "edge1") == {"DOWN"}
    node.application_status = {}
    assert returning.wait(60) == 0
    assert serving_edges(STICKY) == {"edge1"}


def test_no_viewer_is_lost_while_a_server_leaves_and_returns(balancer: Balancer) -> None:
    with viewing() as statuses:
        for _ in range(3):
            balancer.haproxy.run_script("drain-server.sh", "edge1", "10", "setup 2")
            balancer.haproxy.run_script("return-server.sh", "edge1")
    assert set(statuses) == {200}


def test_reload_keeps_drained_and_failed_servers_out_of_service(balancer: Balancer) -> None:
    balancer.haproxy.run_script("drain-server.sh", "edge1", "0", "setup 2")
    balancer.nodes["origin1"].application_status = {"live": 500}
    while states(balancer, "origin1") != {"DOWN"}:
        time.sleep(0.05)
    # Another edge moves the others to other lines of the file.
    for config in (GROWN, CLUSTER):
        balancer.haproxy.reload_with_script(render_haproxy_cfg(config))
        assert states(balancer, "edge1") == {"MAINT"}
        assert states(balancer, "origin1") == {"DOWN"}
        assert "edge1" not in serving_edges(STICKY)
    # A later reload without the script must not load an old state.
    assert (balancer.haproxy.root / "run/haproxy/server-state").read_text() == "1\n"
    balancer.nodes["origin1"].application_status = {}
    assert "edge1 was left out of service" in balancer.haproxy.run_script("wait-for-servers.sh", "digest")
    assert states(balancer, "edge1") == states(balancer, "origin1") == {"UP"}


def test_draining_survives_a_reload_without_the_script(balancer: Balancer) -> None:
    websocket, _ = open_websocket(5443, "/LiveApp/websocket", STICKY)
    with websocket:
        drain = balancer.haproxy.start_script("drain-server.sh", "edge1", "300", "setup 2")
        assert drain.stdout
        assert "1 connections" in drain.stdout.readline()
        balancer.haproxy.reload(render_haproxy_cfg(CLUSTER))
        while states(balancer, "edge1") != {"DRAIN"}:
            time.sleep(0.05)
        assert serving_edges() == {"edge2"}
    assert drain.wait(60) == 0
    assert states(balancer, "edge1") == {"MAINT"}
    balancer.haproxy.run_script("return-server.sh", "edge1")


def test_only_server_of_a_role_stays_in_service(balancer: Balancer) -> None:
    balancer.haproxy.reload(render_haproxy_cfg(replace(CLUSTER, origins=CLUSTER.origins[:1])))
    wait_until_up(balancer)
    output = balancer.haproxy.run_script("drain-server.sh", "origin1", "5", "setup 2")
    assert output == "origin1 stays in service: no other server is up in the backends panel, rtmp\n"
    assert states(balancer, "origin1") == {"UP"}
    assert "MAINT" not in set(balancer.haproxy.server_states().values())


def test_unknown_server_and_stopped_haproxy_are_no_errors(balancer: Balancer) -> None:
    for script in (("drain-server.sh", "edge9", "5", "setup 2"), ("return-server.sh", "edge9")):
        assert balancer.haproxy.run_script(*script) == "HAProxy has no server edge9\n"
    root = balancer.haproxy.root
    (root / "run/haproxy-master.sock").rename(root / "run/moved.sock")
    assert balancer.haproxy.run_script("drain-server.sh", "edge1", "5", "setup 2").startswith(
        "HAProxy does not run"
    )
    # Before the first start of HAProxy, nobody waits for it.
    (root / "run/active-state").write_text("inactive\n")
    sleep = root / "usr/local/bin/sleep"
    sleep.write_text("#!/bin/sh\ntouch /run/slept\n")
    sleep.chmod(0o755)
    assert balancer.haproxy.run_script("return-server.sh", "edge1") == "HAProxy does not run\n"
    assert not (root / "run/slept").exists()
