"""apply-haproxy-config.sh: whatever stops it, HAProxy serves the last good configuration. The tests share one HAProxy."""

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.haproxy_config import render_haproxy_cfg
from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.integration.haproxy.clients import connect, echoes, open_rtmp, read_response, request_https
from tests.integration.haproxy.conftest import CLUSTER, Balancer
from tests.integration.haproxy.haproxy_process import PATIENT_CHECKS, SCRIPTS

APPLIED = (0, "HAProxy serves the new configuration\n")
FAST_CHECKS = dict([("inter 600ms", "inter 50ms"), PATIENT_CHECKS])
REDIRECT = "    http-request redirect prefix https://%[req.hdr(Host),host_only] code 301 unless acme\n"

# Bash reads this file before a script. It appends each line that runs to the file POINTS, and runs ACTION before the line AT.
# With the line it writes what a kill before the line would leave: files, HAProxy's processes, and the script's own.
TRACE = """
trap 'at=${BASH_SOURCE[0]##*/}:$LINENO; case $at in
  apply-*|restore-*|reload-*) [ "$at" != "$AT" ] || eval "$ACTION"; [ -z "$POINTS" ] || echo "$at $(print_state "$(jobs -p)")" >>"$POINTS" ;; esac' DEBUG
set -T
print_state() {
  {
    echo "$1"
    find /etc/haproxy /run /var/lib/ant-media-cluster -type f -printf '%p %i %s %m %T@\\n'
    echo "show proc" | socat - UNIX-CONNECT:/run/haproxy-master.sock | awk '{ print $1, $2 }'
  } 2>/dev/null | cksum | tr ' ' -
}
"""
KILL = "kill -KILL 0"
"""Kills the script and its children."""
FILL_DISK = "head -c 1M /dev/zero >/etc/haproxy/filler 2>/dev/null || true"


def render(version: int, **replacements: str) -> str:
    """Returns a configuration that is recognized by its Strict-Transport-Security header."""
    text = render_haproxy_cfg(replace(CLUSTER, hsts_max_age=version))
    for old, new in (FAST_CHECKS | replacements).items():
        assert old in text
        text = text.replace(old, new)
    return text


def without_redirect(version: int) -> str:
    """Returns a configuration that HAProxy runs and that the script refuses after the reload."""
    return render(version, **{REDIRECT: "    http-request return status 200 unless acme\n"})


class Target:
    """The load balancer that the script changes."""

    def __init__(self, balancer: Balancer) -> None:
        self.haproxy = balancer.haproxy
        self.nodes = balancer.nodes
        self.folder = self.haproxy.root / "etc/haproxy"
        (self.haproxy.root / "trace").write_text(TRACE)

    def start(self, text: str, at: str = "", action: str = "", points: str = "") -> "subprocess.Popen[str]":
        trace = {"BASH_ENV": "/trace", "AT": at, "ACTION": action, "POINTS": points} if at or points else {}
        return self.haproxy.start_script("apply-haproxy-config.sh", input=text, environment=trace)

    def apply(self, text: str, at: str = "", action: str = "", points: str = "") -> tuple[int, str]:
        """Returns the exit code and the output of an apply."""
        process = self.start(text, at, action, points)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def list_points(self, text: str) -> dict[str, bool]:
        """Returns each line of the scripts that an apply runs, in the order of their first runs.

        The value is True if anything that outlives the scripts has changed since the line before.
        """
        self.apply(text, points="/points")
        points: dict[str, bool] = {}
        before = ""
        for point, state in map(str.split, (self.haproxy.root / "points").read_text().splitlines()):
            if point not in points:
                points[point] = state != before
                before = state
        return points

    def find_point(self, command: str) -> str:
        """Returns the only line of the script that holds a command."""
        lines = (SCRIPTS / "balancer/apply-haproxy-config.sh").read_text().splitlines()
        (number,) = [number for number, line in enumerate(lines, 1) if command in line]
        return f"apply-haproxy-config.sh:{number}"

    def restore(self, *arguments: str) -> None:
        self.haproxy.run_script("restore-haproxy-config.sh", *arguments)

    def read_file(self) -> str:
        return (self.folder / "haproxy.cfg").read_text()

    def list_files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    @property
    def version(self) -> int:
        self.haproxy.wait_for_old_workers()
        response = request_https(443, "/LiveApp/")
        assert response.status == 200
        return int((response.header("Strict-Transport-Security") or "").removeprefix("max-age="))

    @property
    def redirects(self) -> bool:
        self.haproxy.wait_for_old_workers()
        with connect(80) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: live.example.com\r\n\r\n")
            return read_response(connection).status == 301

    @property
    def worker(self) -> str:
        """PID of the current worker."""
        processes = self.haproxy.ask_master("show proc").splitlines()
        return next(line.split()[0] for line in processes if line.split()[1:2] == ["worker"])


@pytest.fixture(scope="module")
def target(balancer: Balancer) -> Target:
    # The script looks for the machine's address on the way to this network.
    subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "nodes"], check=True)
    target = Target(balancer)
    assert target.apply(render(1)) == APPLIED
    assert target.version == 1
    return target


def test_apply_killed_at_any_line_leaves_the_last_good_configuration(target: Target) -> None:
    """In the running HAProxy, in the file that a reboot reads, and for the next apply.

    A kill at a line leaves the same as one at the line before, unless something has changed in between.
    """
    before = target.list_files()
    points = target.list_points(without_redirect(2))
    assert len([point for point in points if point.startswith("apply-")]) > 30
    assert any(point.startswith("restore-") for point in points)
    good = target.read_file()
    changes = [point for point, changed in points.items() if changed]
    assert len(changes) > 15
    for point in changes:
        # If the machine pauses the script, the loop that waits for the rehearsal may end before its first round.
        codes = (target.apply(without_redirect(2), point, KILL)[0] for _ in range(20))
        assert -signal.SIGKILL in codes, point
        assert request_https(443, "/LiveApp/").status == 200, point
        remains = {path: path.read_bytes() for path in target.folder.glob("haproxy.cfg*")}
        target.restore("before-start")
        assert target.read_file() == good, point
        # A killed reload leaves the state that the servers had then.
        assert (target.haproxy.root / "run/haproxy/server-state").read_text() == "1\n", point
        # A machine that is not rebooted.
        for path, content in remains.items():
            path.write_bytes(content)
        target.restore()
        assert target.read_file() == good, point
        assert (target.version, target.redirects) == (1, True), point
    assert target.apply(render(3)) == APPLIED
    assert target.version == 3
    assert target.list_files() == before


def test_apply_after_a_killed_one_converges_and_rolls_back_to_the_last_good_configuration(
    target: Target,
) -> None:
    good = target.read_file()
    after_reload = target.find_point("verify_ports ||")
    target.apply(without_redirect(4), after_reload, KILL)
    assert not target.redirects
    code, output = target.apply(without_redirect(5))
    assert code == 1
    assert output.splitlines()[-2:] == [
        "Port 80 does not redirect to HTTPS.",
        "HAProxy serves the previous configuration again.",
    ]
    assert (target.read_file(), target.redirects) == (good, True)
    target.apply(without_redirect(4), after_reload, KILL)
    assert target.apply(render(6))[0] == 0
    assert (target.version, target.redirects) == (6, True)


def test_start_of_haproxy_within_an_apply_keeps_the_new_configuration(target: Target) -> None:
    """The apply starts HAProxy if it does not run; the unit then runs restore-haproxy-config.sh."""
    restore = f"bash {INSTALLED_SCRIPTS}/restore-haproxy-config.sh before-start"
    assert target.apply(render(7), target.find_point("verify_ports ||"), restore)[0] == 0
    assert (target.version, target.read_file()) == (7, render(7))


def test_limits_that_the_machine_does_not_allow_are_refused_before_a_reload(target: Target) -> None:
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    limits = {"maxconn 8192": f"maxconn {most}", "ulimit-n 18432": f"ulimit-n {3 * most}"}
    before = target.version, target.worker
    assert target.haproxy.validate(render(20, **limits)) == (0, "")
    code, output = target.apply(render(20, **limits))
    assert code == 1
    assert (
        "HAProxy could not start with the new configuration. HAProxy still serves the previous one." in output
    )
    assert "Cannot raise FD limit" in output
    assert (target.version, target.worker) == before


def test_configuration_with_which_no_server_of_a_backend_comes_up_reaches_no_viewer(target: Target) -> None:
    before = target.version, target.worker
    # The time that servers have for their health checks ends when one has failed them.
    ends = "[[ ! $answer =~ edges,edge1,[^$'\\n']*DOWN[^$'\\n']*L7STS ]] || end=-1"
    process = target.start(
        render(21, **{"rstatus ^([23]|404)": "rstatus ^5"}), target.find_point("((SECONDS > end))"), ends
    )
    while process.poll() is None:
        assert {request_https(port, "/LiveApp/").status for port in (443, 5443)} == {200}
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "With the new configuration no server of edges, origins passes its health checks." in output
    assert re.search(r"(?m)^edges\tedge1\tDOWN\t(\* )?L7STS", output)
    assert (target.version, target.worker) == before


def test_port_of_another_process_is_refused_before_viewers_notice(target: Target) -> None:
    """While a reload tries to bind a port, the old worker accepts no connections."""
    before = target.version, target.worker
    text = render(27, **{"bind :1935": "bind :2935"})
    failures: list[str] = []

    def ask(port: int) -> None:
        try:
            status = request_https(port, "/LiveApp/").status
            if status != 200:
                failures.append(f"{port}: {status}")
        except OSError as error:
            failures.append(f"{port}: {error}")

    with socket.create_server(("127.0.0.1", 2935)):
        process = target.start(text)
        while process.poll() is None:
            for port in (443, 5443):
                ask(port)
        output = process.communicate()[0]
    assert (process.returncode, failures) == (1, []), output
    assert (
        "Port 2935 of the new configuration cannot be bound: Address already in use. HAProxy still serves the previous one."
        in output
    )
    assert f'users:(("pytest",pid={os.getpid()},' in output
    assert (target.version, target.worker) == before
    # The port of a connection that an old worker still has is free.
    publisher, _ = open_rtmp()
    with publisher:
        assert [target.apply(text), target.apply(render(28))] == [APPLIED, APPLIED]
        assert echoes(publisher)


def test_backend_that_is_down_already_does_not_stop_a_new_configuration(target: Target) -> None:
    edges = [server.name for server in CLUSTER.edges]
    for edge in edges:
        target.nodes[edge].liveness = 500
    while {target.haproxy.server_states()[f"edges/{edge}"] for edge in edges} != {"DOWN"}:
        time.sleep(0.05)
    assert target.apply(render(22)) == APPLIED
    for edge in edges:
        target.nodes[edge].liveness = 200
    target.haproxy.run_script("wait-for-servers.sh", "digest")


def test_first_configuration_needs_no_server(target: Target) -> None:
    """The machine has the configuration of Debian's package, and no node serves yet."""
    for node in target.nodes.values():
        node.liveness = 500
    target.haproxy.reload("global\n    stats socket /run/haproxy/admin.sock mode 660 level admin\n")
    (target.folder / "haproxy.cfg.last-good").unlink()
    assert target.apply(render(23)) == APPLIED
    for node in target.nodes.values():
        node.liveness = 200
    target.haproxy.run_script("wait-for-servers.sh", "digest")


def test_full_disk_leaves_the_last_good_configuration(target: Target) -> None:
    target.haproxy.run_shell(
        "cd /etc/haproxy; cp -a . /run/copy; mount -t tmpfs -o size=256k disk .; cp -a /run/copy/. /etc/haproxy"
    )
    files, good, before = target.list_files(), target.read_file(), (target.version, target.worker)
    target.haproxy.run_shell(FILL_DISK)
    code, output = target.apply(render(24))
    assert code == 1
    assert "The new configuration could not be written. HAProxy still serves the previous one." in output
    assert "No space left on device" in output
    assert (target.version, target.worker) == before
    (target.folder / "filler").unlink()

    code, output = target.apply(without_redirect(25), target.find_point("verify_ports ||"), FILL_DISK)
    assert code == 1
    assert output.splitlines()[-1] == "HAProxy serves the previous configuration again."
    assert (target.version, target.redirects, target.read_file()) == (before[0], True, good)
    (target.folder / "filler").unlink()
    assert target.list_files() == files
    assert target.apply(render(26)) == APPLIED
