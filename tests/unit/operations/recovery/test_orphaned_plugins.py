"""Plugin processes whose engine was killed: which are found, and which of them are ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.recovery.orphaned_plugins import Process, end_orphans, find_orphans

ADDRESS = "127.0.0.1:40001"
# Starts a plugin and ends, as a killed engine does, so that the plugin loses its parent.
START = """
import os, subprocess, sys
folder, stack, *command = sys.argv[1:]
environment = {**os.environ, "PULUMI_STACK": stack}
if not stack:
    del environment["PULUMI_STACK"]
plugin = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
print(plugin.pid)
"""


class Plugins:
    """Starts processes that look like plugins without an engine."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "pulumi-resource-command"
        self._folder = folder
        self.pids: list[int] = []

    def start(
        self, stack: str, *, folder: Path | None = None, deaf: bool = False, plugin: bool = True
    ) -> int:
        ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
        text = f"import signal, time\n{ignore}time.sleep(60)\n"
        # The previous process may not have read the file yet.
        if not self._script.exists() or self._script.read_text() != text:
            self._script.write_text(text)
        command = [sys.executable, str(self._script), *([ADDRESS] if plugin else [])]
        arguments = [sys.executable, "-c", START, str(folder or self._folder), stack, *command]
        pid = int(subprocess.check_output(arguments))
        self.pids.append(pid)
        time.sleep(0.3 if deaf else 0)
        return pid


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    monkeypatch.chdir(tmp_path)
    plugins = Plugins(tmp_path)
    yield plugins
    for pid in plugins.pids:
        if is_running(pid):
            os.kill(pid, 9)


def is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def process(pid: int, parent: int, name: str, *arguments: str) -> Process:
    return Process(pid, parent, name, arguments)


def test_plugin_is_an_orphan_if_no_ancestor_is_the_engine() -> None:
    command = "/home/jane/.pulumi/plugins/resource-command-v1.2.1/pulumi-resource-command"
    processes = [
        process(1, 0, "systemd", "/sbin/init"),
        process(10, 1, "pulumi", "pulumi", "up"),
        process(11, 10, "pulumi-resource", command, ADDRESS),
        process(12, 10, "pulumi-language", "/x/pulumi-language-python", "--root=/p", ADDRESS),
        process(13, 12, "python", "/x/python", "-u", "/x/pulumi-analyzer-policy-python", ADDRESS),
        process(20, 1, "pulumi-resource", command, ADDRESS),
        process(21, 1, "pulumi-language", "/x/pulumi-language-python", "--root=/p", ADDRESS),
        process(22, 1, "python", "/x/python", "-m", "sandbox.plugins", "resource-aws", ADDRESS),
        process(30, 1, "less", "less", "pulumi-resource-command"),
        process(31, 1, "pulumi-resource", command, "--version"),
    ]
    orphans = find_orphans({one.pid: one for one in processes})
    assert [str(one) for one in orphans] == [
        "pulumi-resource-command (pid 20)",
        "pulumi-language-python (pid 21)",
        "pulumi-resource-aws (pid 22)",
    ]


@pytest.mark.parametrize("deaf", [False, True], ids=["ends on SIGTERM", "ignores SIGTERM"])
def test_orphan_of_the_stack_is_ended(
    plugins: Plugins, deaf: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if deaf:
        # The end after SIGKILL must come within this time too.
        monkeypatch.setattr("operations.recovery.orphaned_plugins._GRACE", 2)
    pid = plugins.start("organization/ant-media-cluster/dev", deaf=deaf)
    end_orphans("dev")
    assert not is_running(pid)
    assert capsys.readouterr().out.startswith(
        f"ended pulumi-resource-command (pid {pid}), whose engine was killed; a script"
    )


def test_processes_of_other_stacks_projects_and_programs_are_left_alone(
    plugins: Plugins, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.start("prod")
    plugins.start("dev", folder=tmp_path_factory.mktemp("project"))
    plugins.start("dev", plugin=False)
    end_orphans("dev")
    assert all(is_running(pid) for pid in plugins.pids)
    assert capsys.readouterr().out == ""


def test_orphan_of_an_unknown_stack_is_named_with_the_command_that_ends_it(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = plugins.start("")
    end_orphans("dev")
    assert is_running(pid)
    assert f"if it is this one, run kill {pid}\n" in capsys.readouterr().out
