"""The Python language host under the real engine."""

import venv
from pathlib import Path

import pytest

from sandbox.plugins.language.plugin import ALREADY_REPORTED
from sandbox.plugins.language.run_program import ALREADY_REPORTED as REPORTED_BY_PROGRAM
from tests.sandbox.cloud.local_cloud import wait_until
from tests.sandbox.plugins.plugin_stack import END_ON_INTERRUPT, Stack


def diagnostics(printed: str) -> str:
    return printed.split("Diagnostics:\n", 1)[1].split("\nResources:", 1)[0]


def test_a_program_gets_its_configuration_project_stack_and_dry_run_flag(stack: Stack) -> None:
    stack.run("config", "set", "colour", "blue")
    stack.run("config", "set", "--secret", "token", "hush-hush")
    stack.program(
        "import pulumi\n"
        "settings = pulumi.Config()\n"
        "pulumi.export('colour', settings.require('colour'))\n"
        "pulumi.export('token', settings.require_secret('token'))\n"
        "pulumi.export('known', pulumi.runtime.is_config_secret('plugins:token'))\n"
        "pulumi.export('where', f'{pulumi.get_project()} {pulumi.get_stack()} {pulumi.runtime.is_dry_run()}')\n"
    )
    preview, printed = stack.preview(), stack.up()
    assert "plugins test True" in preview
    assert "hush-hush" not in preview + printed
    state = stack.outputs()
    assert (state["colour"], state["known"], state["where"]) == ("blue", True, "plugins test False")
    assert "ciphertext" in state["token"]


def test_a_run_error_shows_only_its_message(stack: Stack) -> None:
    stack.program("import pulumi\nraise pulumi.RunError('domain is missing')\n")
    shown = diagnostics(stack.up(fails=True))
    assert "error: domain is missing" in shown
    # The official host adds this line to every RunError.
    assert "error: an unhandled error occurred: program exited with non-zero exit code: 1" in shown
    assert "Traceback" not in shown


def test_log_messages_go_to_the_engine_and_exit_code_32_adds_no_error(stack: Stack) -> None:
    stack.program(
        "import sys\nimport pulumi\npulumi.log.warn('no backup')\npulumi.log.error('domain is missing')\nsys.exit(32)\n"
    )
    shown = diagnostics(stack.up(fails=True))
    assert "warning: no backup" in shown
    assert "error: domain is missing" in shown
    assert "unhandled" not in shown
    assert "Traceback" not in shown


FAILING_UPDATE = """
import pulumi
from pulumi_command import local

failed = local.Command("failed", create="exit 1")
local.Command("later", create=failed.stdout)
"""
TOUCH_ON_INTERRUPT = """
import os, pathlib, signal
signal.signal(signal.SIGINT, lambda *_: (pathlib.Path("interrupted").touch(), os._exit(1)))
"""


def test_a_failing_update_interrupts_the_program(stack: Stack) -> None:
    stack.program(TOUCH_ON_INTERRUPT + FAILING_UPDATE)
    assert "error: exit status 1" in stack.up(fails=True)
    wait_until((stack.folder / "interrupted").exists)


def test_an_interrupted_program_with_the_default_action_shows_no_traceback(stack: Stack) -> None:
    shown = stack.program(END_ON_INTERRUPT + FAILING_UPDATE).up(fails=True)
    assert "error: exit status 1" in shown
    assert "Traceback" not in shown


def test_sys_exit_shows_its_message_and_no_traceback(stack: Stack) -> None:
    stack.program("import sys\nsys.exit('edges: 0 is too few')\n")
    shown = diagnostics(stack.up(fails=True))
    assert "edges: 0 is too few" in shown
    assert "Traceback" not in shown
    assert "non-zero exit code: 1" in shown


def test_an_exception_shows_only_the_programs_frames(stack: Stack) -> None:
    stack.program("def plan() -> None:\n    raise ValueError('no room')\n\nplan()\n")
    shown = diagnostics(stack.up(fails=True))
    assert "error: Program failed with an unhandled exception:" in shown
    assert "__main__.py" in shown
    assert "ValueError: no room" in shown
    assert "run_program.py" not in shown
    assert "runpy" not in shown
    assert REPORTED_BY_PROGRAM == ALREADY_REPORTED


def test_the_virtual_environment_of_pulumi_yaml_runs_the_program(tmp_path: Path, pulumi_home: Path) -> None:
    project = "name: plugins\nruntime: {name: python, options: {virtualenv: own}}\n"
    stack = Stack(tmp_path / "stack", pulumi_home, project)
    stack.program("import sys, pulumi\npulumi.export('prefix', sys.prefix)\n")
    venv.create(stack.folder / "own", system_site_packages=True)
    site = next((stack.folder / "own/lib").glob("python*")) / "site-packages"
    (site / "tests.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    stack.up()
    assert stack.outputs()["prefix"] == str(stack.folder / "own")


def test_a_missing_virtual_environment_of_the_program_is_created(tmp_path: Path, pulumi_home: Path) -> None:
    project = "name: plugins\nruntime: {name: python, options: {virtualenv: own}}\n"
    stack = Stack(tmp_path / "stack", pulumi_home, project)
    # Without requirements.txt the environment has no SDK.
    assert "No module named 'pulumi'" in stack.program("").up(fails=True)
    assert (stack.folder / "own/bin/python").exists()


def test_a_policy_pack_without_its_virtual_environment_hangs(stack: Stack) -> None:
    pack = stack.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: {name: python, options: {virtualenv: .venv}}\n")
    (pack / "__main__.py").write_text("")
    assert stack.program("").hangs("preview", "--policy-pack", str(pack))


def test_a_failing_policy_pack_shows_its_output_and_exit_code(stack: Stack) -> None:
    pack = stack.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\n")
    (pack / "__main__.py").write_text("import sys\nprint('no rules', file=sys.stderr)\nsys.exit(3)\n")
    printed = stack.program("").run("preview", "--policy-pack", str(pack), fails=True)
    assert "no rules" in diagnostics(printed)
    assert "exit status 3" in printed
