"""The output of operations/bin/progress off a terminal."""

import subprocess

from tests.project import PROJECT
from tests.sandbox.plugins.plugin_stack import Stack

UP = ("pulumi", "--color=never", "up", "--yes", "--skip-preview")
PROGRAM = """
from pulumi_command import local
local.Command("good", create="echo first; sleep 0.1; echo last")
local.Command("bad", create="echo some output; echo more output; exit 3")
"""


def run(stack: Stack, *command: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [PROJECT / "operations/bin/progress", *command],
        cwd=stack.folder,
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def rows(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if f":Command {name} " in line]


def test_up_prints_one_line_per_resource(stack: Stack) -> None:
    stack.program(PROGRAM.replace("exit 3", "exit 0"))
    status, lines = run(stack, *UP)
    assert status == 0
    for name in ("good", "bad"):
        assert len(rows(lines, name)) == 1, lines
        assert " created (" in rows(lines, name)[0]
    assert "    + 3 created" in lines
    status, lines = run(stack, *UP, "--refresh")
    assert len(rows(lines, "good")) == 1, lines
    status, lines = run(stack, "pulumi", "--color=never", "destroy", "--yes", "--skip-preview")
    assert len(rows(lines, "good")) == 1, lines


def test_up_shows_every_tenth_attempt_to_connect(stack: Stack) -> None:
    stack.program(
        "from pulumi_command import remote\n"
        "connection = remote.ConnectionArgs(host='127.0.0.1', port=9, dial_error_limit=11)\n"
        "remote.Command('refused', connection=connection, create='true')\n"
    )
    _, lines = run(stack, *UP)
    attempts = [line for line in rows(lines, "refused") if "failed: retrying" in line and "error" not in line]
    assert len(attempts) == 1, lines
    assert "Dial 10/11 failed: retrying" in attempts[0]


def test_a_failed_up_prints_its_whole_error_and_exits_with_its_status(stack: Stack) -> None:
    status, lines = run(stack.program(PROGRAM), *UP)
    assert status not in (0, 141)
    diagnostics = lines[lines.index("Diagnostics:") :]
    assert any("error: exit status 3: running" in line for line in diagnostics)
    assert {"some output", "more output"} <= {line.strip() for line in diagnostics}
