"""The workflows of GitHub and GitLab: what actionlint and the schemas cannot know of them."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import PROJECT

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((PROJECT / ".github/actions").glob("*/action.yml"))
GITLAB = PROJECT / ".gitlab-ci.yml"
CHANGING = {"up", "cluster", "cluster-down", "clusters-down-expired"}
"""The targets of `make` that change a stack's cloud."""
CHOOSING = {"STACK": "dev", "FORMAT": "markdown"}
"""Variables by which the Makefile chooses among recipes."""


@dataclass(frozen=True)
class Job:
    file: str
    name: str
    keys: dict[str, Any]
    """As written, in GitLab's case with what it extends."""
    lines: Sequence[str]
    """What it runs, line by line."""

    @property
    def made(self) -> set[str]:
        return {target for line in self.lines for target, _ in _makes(line)}


def _github_jobs() -> Iterator[Job]:
    for path in WORKFLOWS:
        for name, keys in yaml.safe_load(path.read_text())["jobs"].items():
            yield Job(path.name, name, keys, [step["run"] for step in keys.get("steps", []) if "run" in step])


def _gitlab_jobs() -> Iterator[Job]:
    everything = yaml.safe_load(GITLAB.read_text())

    def whole(keys: dict[str, Any]) -> dict[str, Any]:
        return {**(whole(everything[keys["extends"]]) if "extends" in keys else {}), **keys}

    for name, keys in everything.items():
        if name not in ("stages", "workflow") and not name.startswith("."):
            yield Job(GITLAB.name, name, whole(keys), whole(keys)["script"])


def _makes(line: str) -> Iterator[tuple[str, list[str]]]:
    """Each `make` in it: target and names of the variables that it is given."""
    for words in re.findall(r"\bmake ((?:--\S+ +|[A-Z]+=\S+ *|[a-z][a-z-]* *)+)", line.replace("\\\n", "")):
        arguments = [word for word in words.split() if not word.startswith("--")]
        yield arguments[0], [word.partition("=")[0] for word in arguments[1:]]


JOBS = [*_github_jobs(), *_gitlab_jobs()]


def _named(jobs: Sequence[Job]) -> Any:
    return pytest.mark.parametrize("job", jobs, ids=[f"{job.file}-{job.name}" for job in jobs])


def test_the_reading_of_jobs_sees_them_all() -> None:
    made = {target for job in JOBS for target in job.made}
    assert made == CHANGING | {"preview", "drift"}
    for file in ("github", GITLAB.name):
        of = [job for job in JOBS if (job.file == GITLAB.name) == (file == GITLAB.name)]
        assert {target for job in of for target in job.made} == made, file


def test_what_a_job_runs_is_there_with_the_variables_that_it_is_given() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for job in JOBS:
        for line in job.lines:
            for target, variables in _makes(line):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{job.file}: make {target}"
                given = {name: f"given-{name.lower()}" for name in variables}
                given |= {name: value for name, value in CHOOSING.items() if name in given}
                dry = subprocess.run(
                    ["make", "--dry-run", target, *(f"{name}={value}" for name, value in given.items())],
                    cwd=PROJECT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert dry.returncode == 0, dry.stderr
                for name, value in given.items():
                    seen = f"$({name})" in makefile if name in CHOOSING else value in dry.stdout
                    assert seen, f"{job.file}: make {target} {name}=…"
            for module in re.findall(r"python3? -m (operations[\w.]+)", line):
                assert find_spec(module), f"{job.file}: {module}"
            assert ".ci/run" not in line or (PROJECT / ".ci/run").exists()


@_named([job for job in JOBS if job.made & CHANGING])
def test_what_changes_a_stack_runs_alone_and_ends_by_itself(job: Job) -> None:
    if job.file == GITLAB.name:
        assert job.keys["interruptible"] is False
        group, limit = job.keys["resource_group"], int(job.keys["timeout"].removesuffix("m"))
    else:
        assert job.keys["concurrency"]["cancel-in-progress"] is False
        group, limit = job.keys["concurrency"]["group"], job.keys["timeout-minutes"]
    if "up" in job.made:
        assert group in ("stack-${{ inputs.stack }}", f"stack-{job.name.removeprefix('deploy-')}")
    elif "clusters-down-expired" not in job.made:
        assert re.search("request.number|REQUEST_IID", group), group
    (line,) = (line for line in job.lines if re.search(r"\bmake\b", line))
    stopped = re.match(r"timeout --signal=INT --kill-after=(\d+)m (\d+)m\s", line)
    assert stopped, line
    # Setting up takes a while as well, and a role is given for an hour.
    assert int(stopped[1]) + int(stopped[2]) + 10 <= limit <= 60


@_named([job for job in JOBS if job.file == "test-cluster.yml" and job.name != "fork"])
def test_a_test_cluster_never_comes_and_goes_at_once(job: Job) -> None:
    assert job.keys["concurrency"]["group"] == "stack-pr-${{ github.event.pull_request.number }}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_no_more_than_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    triggers = workflow[True]  # YAML 1.1 reads `on` so
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
            # What a stranger may have written goes through the environment, never into a command's text.
            assert "${{" not in step.get("run", ""), name


def test_no_key_of_aws_is_anywhere() -> None:
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


def test_jobs_install_the_engine_that_the_tests_run_on() -> None:
    engine = (PROJECT / "sandbox/engine/engine.sh").read_text()
    version = re.search(r"engine_version=([\d.]+)", engine)
    assert version
    assert f"pulumi-version: {version[1]}\n" in (PROJECT / ".github/actions/pulumi/action.yml").read_text()
    image = yaml.safe_load(GITLAB.read_text())[".pulumi"]["image"]
    # Its own entrypoint takes the job's shell for a command of Pulumi.
    assert image == {"name": f"pulumi/pulumi:{version[1]}", "entrypoint": [""]}


def test_a_preview_that_never_began_has_a_comment_too() -> None:
    """With no engine, no setup and no file: what a step before it left."""
    steps = yaml.safe_load((PROJECT / ".github/workflows/preview.yml").read_text())["jobs"]["preview"][
        "steps"
    ]
    on_github = [step for step in steps if "operations.preview" in step.get("run", "")]
    assert [step["if"] for step in on_github] == ["${{ !cancelled() }}"]
    on_gitlab = yaml.safe_load(GITLAB.read_text())["preview"]["after_script"]
    for line in (on_github[0]["run"], *on_gitlab):
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
