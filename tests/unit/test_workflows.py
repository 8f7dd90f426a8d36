"""Rules of the workflows of GitHub and GitLab that actionlint and the schemas do not check."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.official_plugins import STEPS
from tests.project import PROJECT

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((PROJECT / ".github/actions").glob("*/action.yml"))
GITLAB = PROJECT / ".gitlab-ci.yml"
CHANGING_TARGETS = {"up", "cluster", "cluster-down", "clusters-down-expired"}
"""Targets of `make` that change the resources of a stack."""
SELECTORS = {"STACK": "dev", "FORMAT": "markdown"}
"""Variables that select a recipe in the Makefile, with a valid value."""


@dataclass(frozen=True)
class Job:
    file: str
    name: str
    keys: dict[str, Any]
    """As written. In a GitLab job, merged with the job that it extends."""
    lines: Sequence[str]
    """Commands that the job runs."""

    @property
    def targets(self) -> set[str]:
        return {target for line in self.lines for target, _ in _find_make_calls(line)}


def _github_jobs() -> Iterator[Job]:
    for path in WORKFLOWS:
        for name, keys in yaml.safe_load(path.read_text())["jobs"].items():
            yield Job(path.name, name, keys, [step["run"] for step in keys.get("steps", []) if "run" in step])


def _gitlab_jobs() -> Iterator[Job]:
    document = yaml.safe_load(GITLAB.read_text())

    def merge_extends(keys: dict[str, Any]) -> dict[str, Any]:
        return {**(merge_extends(document[keys["extends"]]) if "extends" in keys else {}), **keys}

    for name, keys in document.items():
        if name not in ("stages", "workflow") and not name.startswith("."):
            yield Job(GITLAB.name, name, merge_extends(keys), merge_extends(keys)["script"])


def _find_make_calls(line: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the target and the variable names of each `make` call."""
    for words in re.findall(r"\bmake ((?:--\S+ +|[A-Z]+=\S+ *|[a-z][a-z-]* *)+)", line.replace("\\\n", "")):
        arguments = [word for word in words.split() if not word.startswith("--")]
        yield arguments[0], [word.partition("=")[0] for word in arguments[1:]]


JOBS = [*_github_jobs(), *_gitlab_jobs()]


def _parametrize(jobs: Sequence[Job]) -> Any:
    return pytest.mark.parametrize("job", jobs, ids=[f"{job.file}-{job.name}" for job in jobs])


def test_all_jobs_are_found() -> None:
    targets = {target for job in JOBS for target in job.targets}
    assert targets == CHANGING_TARGETS | {"preview", "drift"}
    for file in ("github", GITLAB.name):
        jobs = [job for job in JOBS if (job.file == GITLAB.name) == (file == GITLAB.name)]
        assert {target for job in jobs for target in job.targets} == targets, file


def test_make_targets_variables_and_commands_of_jobs_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for job in JOBS:
        for line in job.lines:
            for target, variables in _find_make_calls(line):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{job.file}: make {target}"
                values = {name: f"given-{name.lower()}" for name in variables}
                values |= {name: value for name, value in SELECTORS.items() if name in values}
                dry = subprocess.run(
                    ["make", "--dry-run", target, *(f"{name}={value}" for name, value in values.items())],
                    cwd=PROJECT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert dry.returncode == 0, dry.stderr
                for name, value in values.items():
                    used = f"$({name})" in makefile if name in SELECTORS else value in dry.stdout
                    assert used, f"{job.file}: make {target} {name}=…"
            for command in re.findall(r"python3 -m (operations[\w.]+(?: [a-z][a-z-]+)?)", line):
                # An unknown module or subcommand has no help.
                subprocess.run(
                    ["python3", "-m", *command.split(), "--help"],
                    cwd=PROJECT,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            assert ".ci/run" not in line or (PROJECT / ".ci/run").exists()


@_parametrize([job for job in JOBS if job.name == "official-plugins"])
def test_official_plugins_are_tested_in_all_steps(job: Job) -> None:
    commands = [line.removeprefix("sudo ") for line in job.lines]
    assert commands == [f"python3 -m tests.official_plugins {step}" for step in STEPS]


def test_both_forges_run_all_tests() -> None:
    jobs = [(job.file, line.removeprefix("sudo ")) for job in JOBS for line in job.lines]
    for file in ("check.yml", GITLAB.name):
        assert (file, ".ci/run") in jobs
        assert (file, "python3 -m tests.official_plugins set-up") in jobs


@_parametrize([job for job in JOBS if job.targets & CHANGING_TARGETS])
def test_jobs_that_change_a_stack_run_alone_and_end_before_the_runner_stops_them(job: Job) -> None:
    if job.file == GITLAB.name:
        assert job.keys["interruptible"] is False
        group, limit = job.keys["resource_group"], int(job.keys["timeout"].removesuffix("m"))
    else:
        assert job.keys["concurrency"]["cancel-in-progress"] is False
        group, limit = job.keys["concurrency"]["group"], job.keys["timeout-minutes"]
    if "up" in job.targets:
        assert group in ("stack-${{ inputs.stack }}", f"stack-{job.name.removeprefix('deploy-')}")
    elif "clusters-down-expired" not in job.targets:
        assert re.search("request.number|REQUEST_IID", group), group
    (line,) = (line for line in job.lines if re.search(r"\bmake\b", line))
    timeout = re.match(r"timeout --signal=INT --kill-after=(\d+)m (\d+)m\s", line)
    assert timeout, line
    # 10 minutes for the setup. The role's credentials last an hour.
    assert int(timeout[1]) + int(timeout[2]) + 10 <= limit <= 60
    if job.targets & {"up", "cluster"}:
        # An interrupted run waits for the script that it runs.
        sources = "".join(path.read_text() for path in (PROJECT / "components").glob("*.py"))
        longest = max(int(seconds) for seconds in re.findall(r"\btimeout=(\d+)", sources))
        assert int(timeout[1]) * 60 > longest


@_parametrize([job for job in JOBS if job.file == "test-cluster.yml" and job.name != "fork"])
def test_up_and_down_of_a_test_cluster_never_run_at_the_same_time(job: Job) -> None:
    assert job.keys["concurrency"]["group"] == "stack-pr-${{ github.event.pull_request.number }}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_has_only_the_permissions_that_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    triggers = workflow[True]  # YAML 1.1 parses the key `on` as true
    assert "pull_request_target" not in triggers, "a fork's code would run with credentials"
    assert "workflow_run" not in triggers
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        permissions = job.get("permissions", {})
        assert set(permissions.values()) <= {"read", "write"}
        assert permissions.get("contents", "read") == "read"
        if "id-token" in permissions and "pull_request" in triggers:
            assert "head.repo.full_name == github.repository" in job["if"], name
        uses_role = any(step.get("uses") == "./.github/actions/pulumi" for step in job.get("steps", []))
        assert uses_role == ("id-token" in permissions and "steps" in job), name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            # Untrusted values must reach a command through the environment, not through its text.
            assert "${{" not in step.get("run", ""), name


def test_no_workflow_uses_an_aws_key() -> None:
    for path in (*WORKFLOWS, *ACTIONS, GITLAB):
        assert not re.search("AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)|aws-access-key-id", path.read_text()), (
            path
        )


def test_actions_are_pinned_to_commits() -> None:
    used = [
        line.strip()
        for path in (*WORKFLOWS, *ACTIONS)
        for line in path.read_text().splitlines()
        if re.match(r"\s*(- )?uses: (?!\./)", line)
    ]
    assert len(used) > 10
    for line in used:
        assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_jobs_and_tests_use_the_same_engine_version() -> None:
    engine = (PROJECT / "sandbox/engine/engine.sh").read_text()
    version = re.search(r"engine_version=([\d.]+)", engine)
    assert version
    assert f"pulumi-version: {version[1]}\n" in (PROJECT / ".github/actions/pulumi/action.yml").read_text()
    image = yaml.safe_load(GITLAB.read_text())[".pulumi"]["image"]
    # The image's own entrypoint would run the job's shell as a Pulumi command.
    assert image == {"name": f"pulumi/pulumi:{version[1]}", "entrypoint": [""]}


def test_failure_before_the_preview_gets_a_comment() -> None:
    """The commands work with the system's Python before anything is installed."""
    steps = yaml.safe_load((PROJECT / ".github/workflows/preview.yml").read_text())["jobs"]["preview"][
        "steps"
    ]
    github_steps = [step for step in steps if "operations.preview" in step.get("run", "")]
    assert [step["if"] for step in github_steps] == ["${{ !cancelled() }}"]
    gitlab_script = yaml.safe_load(GITLAB.read_text())["preview"]["after_script"]
    for line in (github_steps[0]["run"], *gitlab_script):
        assert re.search(r"python3 -m operations.preview \"\$STACK\"", line)
        ran = subprocess.run(
            ["python3", "-m", "operations.preview", "dev"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.startswith(
            "<!-- ant-media-cluster preview: dev -->\n### `dev`: the preview failed\n"
        )
