"""The stack's secrets appear nowhere in clear text, neither during the first update nor later."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Startup
from tests.e2e.process_monitor import ProcessMonitor
from tests.e2e.running_cluster import STATE, Cluster
from tests.e2e.stack_secrets import find_leaks, list_secret_texts, read_files
from tests.project import PROJECT


@pytest.fixture(scope="module")
def secrets(cluster: Cluster) -> dict[str, list[bytes]]:
    return list_secret_texts(cluster)


def test_every_secret_is_searched_for(secrets: dict[str, list[bytes]]) -> None:
    assert {
        "sshPrivateKey",
        "sshHostKeySeed",
        "databasePassword",
        "statisticsPassword",
        "panelPassword",
    } <= set(secrets)
    assert sum(name.startswith("host key of") for name in secrets) == 6
    assert all(len(line) >= 16 for lines in secrets.values() for line in lines)
    assert all(secrets.values())


def test_monitor_recorded_the_processes_of_machines(
    cluster: Cluster, process_monitor: ProcessMonitor
) -> None:
    # The fixture `bring_up` has waited until it recorded an argument and an environment.
    for script in ("set-up-media-node.sh", "install-valkey.sh", "set-statistics-password.sh"):
        assert process_monitor.has_seen(script), script


def test_no_secret_is_in_a_command_line_or_environment_of_a_machine(
    process_monitor: ProcessMonitor, secrets: dict[str, list[bytes]]
) -> None:
    texts = {text.decode(errors="replace"): text for text in process_monitor.seen}
    assert not find_leaks(texts, secrets)


def test_no_secret_is_in_the_state_or_output_of_pulumi(
    startup: Startup, cluster: Cluster, secrets: dict[str, list[bytes]]
) -> None:
    home = PROJECT / ".venv/pulumi-home"
    assert not (home / "logs").is_dir()
    texts = read_files(STATE / "pulumi")
    assert any(path.endswith("stacks/ant-media-cluster/sandbox.json") for path in texts)
    texts["output of up"] = startup.up.output.encode()
    texts["stack output"] = cluster.pulumi("stack", "output", "--json").output.encode()
    assert not find_leaks(texts, secrets)


def test_no_secret_is_in_a_log_of_a_machine(cluster: Cluster, secrets: dict[str, list[bytes]]) -> None:
    texts: dict[str, bytes] = {}
    for name, machine in cluster.list_machines().items():
        journal = cluster.run_on(name, "journalctl", "--all", "--no-pager", "--output=export")
        assert len(journal.stdout) > 10_000
        texts[f"journal of {name}"] = journal.output.encode()
        folder = STATE / "machines" / machine.id
        texts |= read_files(folder / "upper/var/log") | {
            f"console of {name}": (folder / "console.log").read_bytes()
        }
    assert any(path.endswith("antmedia/ant-media-server.log") for path in texts)
    assert any(path.endswith("valkey/valkey-server.log") for path in texts)
    assert not find_leaks(texts, secrets)


def test_files_with_a_secret_are_not_world_readable(
    cluster: Cluster, secrets: dict[str, list[bytes]]
) -> None:
    """Also shows that the search finds secrets: every machine has a file with one."""
    for machine in cluster.list_machines().values():
        files_with_secret = [
            path
            for path, text in read_files(
                *(STATE / "machines" / machine.id / "upper" / part for part in ("etc", "usr/local"))
            ).items()
            if find_leaks({path: text}, secrets)
        ]
        assert files_with_secret, machine.name
        for path in files_with_secret:
            assert Path(path).stat().st_mode & 0o007 == 0, path
