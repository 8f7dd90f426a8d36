"""Nothing that the stack keeps secret is to be read where it was not asked for, during the first update or after it."""

import os
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.running_cluster import STATE, Cluster
from tests.e2e.stack_secrets import files_below, found_in, stack_secrets


@pytest.fixture(scope="module")
def secrets(cluster: Cluster) -> dict[str, list[bytes]]:
    return stack_secrets(cluster)


def test_the_secrets_to_look_for_are_all_there(secrets: dict[str, list[bytes]]) -> None:
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


def test_the_watcher_saw_what_can_be_seen_of_a_machines_processes(start: Start) -> None:
    for kind in ("as-argument", "in-environment"):
        assert any(f"{start.canary}-{kind}".encode() in text for text in start.seen)
    # What the program runs was seen as well, so it was looked for often enough.
    for script in ("set-up-media-node.sh", "install-valkey.sh", "set-statistics-password.sh"):
        assert any(script.encode() in text for text in start.seen), script
    assert start.sweeps / start.seconds > 10


def test_no_secret_is_on_a_command_line_or_in_an_environment_of_any_machine(
    start: Start, secrets: dict[str, list[bytes]]
) -> None:
    assert not found_in({text.decode(errors="replace"): text for text in start.seen}, secrets)


def test_no_secret_is_in_the_state_or_in_what_pulumi_says(
    start: Start, cluster: Cluster, secrets: dict[str, list[bytes]]
) -> None:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    texts = files_below(STATE / "pulumi", home / "logs")
    assert any(path.endswith("stacks/ant-media-cluster/sandbox.json") for path in texts)
    texts["output of up"] = start.up.output.encode()
    texts["stack output"] = cluster.pulumi("stack", "output", "--json").output.encode()
    texts["preview"] = cluster.pulumi("preview", "--diff", "--show-sames").output.encode()
    assert not found_in(texts, secrets)


def test_no_secret_is_in_a_log_of_any_machine(cluster: Cluster, secrets: dict[str, list[bytes]]) -> None:
    texts: dict[str, bytes] = {}
    for name, machine in cluster.machines().items():
        journal = cluster.shell(name, "journalctl", "--all", "--no-pager", "--output=export")
        assert len(journal.stdout) > 10_000
        texts[f"journal of {name}"] = journal.output.encode()
        folder = STATE / "machines" / machine.id
        texts |= files_below(folder / "upper/var/log") | {
            f"console of {name}": (folder / "console.log").read_bytes()
        }
    assert any(path.endswith("antmedia/ant-media-server.log") for path in texts)
    assert any(path.endswith("valkey/valkey-server.log") for path in texts)
    assert not found_in(texts, secrets)


def test_the_files_that_need_a_secret_are_closed_to_others(
    cluster: Cluster, secrets: dict[str, list[bytes]]
) -> None:
    """So the search above would find a secret where there is one."""
    for machine in cluster.machines().values():
        holding = [
            path
            for path, text in files_below(
                *(STATE / "machines" / machine.id / "upper" / part for part in ("etc", "usr/local"))
            ).items()
            if found_in({path: text}, secrets)
        ]
        assert holding, machine.name
        for path in holding:
            assert Path(path).stat().st_mode & 0o007 == 0, path
