"""When all is done: nothing tried to leave, and nothing stays."""

from cluster import STATE, Cluster
from conftest import Start
from host_snapshot import left_of, processes_of_sandbox, take_snapshot


def test_nothing_tried_to_leave_the_sandbox(cluster: Cluster) -> None:
    status = cluster.status()
    assert (status["escaped_packets"], status["escaped_destinations"]) == (0, [])


def test_down_leaves_nothing_of_the_sandbox_and_the_host_as_it_was(start: Start, cluster: Cluster) -> None:
    processes = processes_of_sandbox(int((STATE / "pid").read_text().split()[1]))
    assert len(processes) > 15  # that of two machines at least
    assert set(left_of(processes)) == {"processes", "mounts", "control groups", "state folder", "listeners"}

    down = cluster.take_away()
    assert down.status == 0, down.output
    assert "failed" not in down.output
    assert left_of(processes) == {}
    after = take_snapshot()
    changed = {name for name, value in start.before.sysctls.items() if after.sysctls.get(name) != value}
    assert changed == set()
    for what in ("mounts", "namespaces", "interfaces", "addresses", "routes", "nftables"):
        assert getattr(after, what) == getattr(start.before, what), what
