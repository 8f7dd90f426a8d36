"""`python -m operations.plan apply`: applies a plan, and prints no values when the plan is stale."""

import subprocess
import sys
from pathlib import Path

import pytest

VIOLATION = """\
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


def apply(tmp_path: Path, output: str, status: int) -> subprocess.CompletedProcess[str]:
    """Applies a plan with a fake engine that prints its arguments and `output`, then exits with `status`."""
    plan, engine, text = tmp_path / "dev.plan.json", tmp_path / "pulumi", tmp_path / "output"
    plan.write_text("{}")
    text.write_text(output)
    engine.write_text(f'#!/bin/sh\necho "$@"\ncat {text}\nexit {status}\n')
    engine.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-m", "operations.plan", "apply", plan, engine, "up"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 255])
def test_fresh_plan_is_applied_and_output_is_printed(tmp_path: Path, status: int) -> None:
    ran = apply(tmp_path, "Updating (dev):\n ~  aws:ec2:Instance edge1 updated\n", status)
    arguments = f"up --yes --plan {tmp_path}/dev.plan.json\n"
    assert (ran.returncode, ran.stdout) == (
        status,
        arguments + "Updating (dev):\n ~  aws:ec2:Instance edge1 updated\n",
    )


def test_stale_plan_prints_resources_without_values(tmp_path: Path) -> None:
    ran = apply(tmp_path, f"Previewing update (dev):\n{VIOLATION}", 255)
    assert ran.returncode == 1
    assert ran.stderr == (
        "\nNothing was changed. The plan is stale: since it was saved, the settings, the program or the cloud have changed. "
        "Affected: edge1-ant-media.\n"
        f"Preview and review again: make preview FORMAT=markdown PLAN={tmp_path}/dev.plan.json\n"
    )
    assert "password" not in ran.stdout


def test_plan_that_turns_stale_during_the_update_is_reported_as_partly_done(tmp_path: Path) -> None:
    ran = apply(tmp_path, f"Previewing update (dev):\nUpdating (dev):\n{VIOLATION}", 255)
    assert ran.stderr.startswith("\nPart of the update was done. ")


def test_unplanned_component_and_step_are_named(tmp_path: Path) -> None:
    output = (
        "    ant-media:media:MediaNodes edges  error: resource violates plan: properties changed: =~private_ips[{[]}]\n"
        " +  aws:ec2:Instance edge3 create error: create is not allowed by the plan: no steps were expected for this resource\n"
    )
    assert "Affected: edges, edge3." in apply(tmp_path, output, 255).stderr


def test_default_provider_is_described(tmp_path: Path) -> None:
    output = "    pulumi:providers:aws default_7_51_1  error: resource violates plan: properties changed: ~~defaultTags\n"
    assert "Affected: the settings of the aws provider (tags, region)." in apply(tmp_path, output, 255).stderr


def test_failure_without_an_error_means_a_changed_output(tmp_path: Path) -> None:
    ran = apply(tmp_path, "Previewing update (dev):\n", 1)
    assert (ran.returncode, ran.stderr) == (
        1,
        "\nNothing was changed. The plan is stale: probably an output of the stack has changed.\n"
        f"Preview and review again: make preview FORMAT=markdown PLAN={tmp_path}/dev.plan.json\n",
    )
    assert apply(tmp_path, "error: no stack selected\n", 255).stderr == ""


@pytest.mark.parametrize("text", ["", '{"resourcePlans": {'])
def test_incomplete_plan_is_refused(tmp_path: Path, text: str) -> None:
    plan = tmp_path / "a plan.json"
    plan.write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "operations.plan", "apply", plan, "false"],
        capture_output=True,
        text=True,
        check=False,
    )
    remedy = f"save it again with make preview FORMAT=markdown PLAN={plan}\n"
    assert (ran.returncode, ran.stderr) == (1, f"PLAN={plan}: the plan is incomplete; {remedy}")


def test_missing_plan_is_refused_before_the_engine_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "operations.plan", "apply", "no.json", "false"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("PLAN=no.json: no such file; save it with make preview PLAN=no.json")
