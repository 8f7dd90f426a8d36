"""`make up PLAN=…`: what was reviewed is done, and what the engine quotes where that is another stays unsaid."""

import subprocess
import sys
from pathlib import Path

import pytest

DIFFERS = """\
 ~  command:remote:Command edge1-ant-media refresh error: resource urn:pulumi:dev::p::command:remote:Command::edge1-ant-media violates plan: properties changed: +~stdin[{&{{
@ previewing update....
Diagnostics:
  command:remote:Command (edge1-ant-media):
    error: resource urn:pulumi:dev::p::command:remote:Command::edge1-ant-media violates plan: properties changed: +~stdin[{&{{
    the-old-password
    }}}!={&{{
    the-new-password
    }}}]
"""


def apply(tmp_path: Path, said: str, status: int) -> subprocess.CompletedProcess[str]:
    """With an engine that says this and ends so; what it was asked for comes first."""
    plan, engine, text = tmp_path / "dev.plan.json", tmp_path / "pulumi", tmp_path / "said"
    plan.write_text("{}")
    text.write_text(said)
    engine.write_text(f'#!/bin/sh\necho "$@"\ncat {text}\nexit {status}\n')
    engine.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "operations.plan.apply", plan, engine, "up"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 255])
def test_what_fits_the_plan_is_done_and_shown(tmp_path: Path, status: int) -> None:
    ran = apply(tmp_path, "Updating (dev):\n ~  aws:ec2:Instance edge1 updated\n", status)
    asked = f"up --yes --plan {tmp_path}/dev.plan.json\n"
    assert (ran.returncode, ran.stdout) == (
        status,
        asked + "Updating (dev):\n ~  aws:ec2:Instance edge1 updated\n",
    )


def test_what_differs_from_the_plan_is_named_without_a_value(tmp_path: Path) -> None:
    ran = apply(tmp_path, f"Previewing update (dev):\n{DIFFERS}", 255)
    assert ran.returncode == 1
    assert ran.stderr == (
        "\nNothing was touched. What would be done is no longer what was reviewed: since the plan was saved, the settings, "
        "the program or the cloud became another. It shows at edge1-ant-media.\n"
        f"Preview and review again: make preview FORMAT=markdown PLAN={tmp_path}/dev.plan.json\n"
    )
    assert "password" not in ran.stdout


def test_what_differs_only_when_it_is_done_is_not_said_to_be_untouched(tmp_path: Path) -> None:
    ran = apply(tmp_path, f"Previewing update (dev):\nUpdating (dev):\n{DIFFERS}", 255)
    assert ran.stderr.startswith("\nPart of it was done before that showed. ")


def test_a_component_or_a_step_that_was_not_planned_is_named_too(tmp_path: Path) -> None:
    said = (
        "    ant-media:media:MediaNodes edges  error: resource violates plan: properties changed: =~private_ips[{[]}]\n"
        " +  aws:ec2:Instance edge3 create error: create is not allowed by the plan: no steps were expected for this resource\n"
    )
    assert "It shows at edges, edge3." in apply(tmp_path, said, 255).stderr


def test_the_provider_that_the_engine_makes_is_called_what_it_is(tmp_path: Path) -> None:
    said = "    pulumi:providers:aws default_7_51_1  error: resource violates plan: properties changed: ~~defaultTags\n"
    assert "It shows at the settings of the aws provider (tags, region)." in apply(tmp_path, said, 255).stderr


def test_an_engine_that_ends_without_a_word_has_found_another_output(tmp_path: Path) -> None:
    ran = apply(tmp_path, "Previewing update (dev):\n", 1)
    assert (ran.returncode, ran.stderr) == (
        1,
        "\nNothing was touched: what would be done is no longer what was reviewed; it may be an output of the stack.\n"
        f"Preview and review again: make preview FORMAT=markdown PLAN={tmp_path}/dev.plan.json\n",
    )
    assert apply(tmp_path, "error: no stack selected\n", 255).stderr == ""


@pytest.mark.parametrize("text", ["", '{"resourcePlans": {'])
def test_half_a_plan_is_told_from_one(tmp_path: Path, text: str) -> None:
    plan = tmp_path / "a plan.json"
    plan.write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "operations.plan.apply", plan, "false"],
        capture_output=True,
        text=True,
        check=False,
    )
    again = f"save it again: make preview FORMAT=markdown PLAN={plan}\n"
    assert (ran.returncode, ran.stderr) == (1, f"PLAN={plan}: this is no whole plan; {again}")


def test_a_plan_that_is_not_there_is_said_before_the_engine_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "operations.plan.apply", "no.json", "false"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("PLAN=no.json: there is no such file; make preview PLAN=no.json saves it")
