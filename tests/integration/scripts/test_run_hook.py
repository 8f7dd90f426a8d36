"""Tests run-hook.sh in a Debian 13 tree. It runs the user's script."""

import subprocess
from pathlib import Path

import pytest

from cluster.machine_scripts import ScriptFolder, read_script

RUN_IN_TREE = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
mount -t proc proc "$FOLDER/root/proc"
chroot "$FOLDER/root" /scripts/run-hook.sh edge1 edge && status=0 || status=$?
echo "exit $status"
cat "$FOLDER/root/var/log/hook.log"
"""


@pytest.fixture
def tree(layers: str, tmp_path: Path) -> dict[str, str]:
    for part in ("upper/scripts", "work", "root"):
        (tmp_path / part).mkdir(parents=True)
    for name in ("prelude.sh", "run-hook.sh"):
        file = tmp_path / "upper/scripts" / name
        file.write_text(read_script(ScriptFolder.EVERY_MACHINE, name))
        file.chmod(0o755)
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LAYERS": layers, "FOLDER": str(tmp_path)}


def run_hook(tree: dict[str, str], hook: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "bash", "-c", RUN_IN_TREE]
    return subprocess.run(
        command, env=tree, input=hook, capture_output=True, text=True, timeout=60, check=True
    )


def test_hook_runs_with_the_machines_name_and_role_by_its_own_interpreter(tree: dict[str, str]) -> None:
    done = run_hook(tree, "#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], sys.stdin.read())\n")
    assert done.stdout == "The hook has run\nexit 0\n['edge1', 'edge'] \n"


def test_failing_hook_fails_and_shows_the_end_of_its_output_and_runs_again(tree: dict[str, str]) -> None:
    # The provider of Pulumi's commands hangs at a line of 64 KiB.
    long = "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x; echo; for i in $(seq 30); do echo line $i; done; exit 3\n"
    failed = run_hook(tree, long)
    assert failed.stdout.startswith("exit 1\nxxx")
    assert failed.stderr.splitlines()[0] == "The hook ended with exit code 3. The end of /var/log/hook.log:"
    assert failed.stderr.splitlines()[1:] == [f"line {number}" for number in range(11, 31)]
    assert run_hook(tree, "#!/bin/sh\necho fine\n").stdout == "The hook has run\nexit 0\nfine\n"


def test_hook_that_was_killed_runs_again(tree: dict[str, str]) -> None:
    assert run_hook(tree, "#!/bin/sh\necho half\nkill -KILL $PPID\n").stdout == "exit 137\nhalf\n"
    assert run_hook(tree, "#!/bin/sh\necho whole\n").stdout == "The hook has run\nexit 0\nwhole\n"
