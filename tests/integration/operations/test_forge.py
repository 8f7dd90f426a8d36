"""Comments, issues, plans and approvals in jobs of GitHub and GitLab, against a fake forge over real HTTP."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.operations.forge_server import BOT, OTHER_USER, TOKEN, FakeForge, serve
from tests.project import PROJECT

DEV = "<!-- ant-media-cluster preview: dev -->\n### `dev`: 1 to change\n"
PROD = "<!-- ant-media-cluster preview: prod -->\n### `prod`: nothing changes\n"
DRIFT = "<!-- ant-media-cluster drift: dev -->\n### `dev`: haproxy.cfg differs\n"
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""Hash of the empty Git tree."""


@pytest.fixture
def forge() -> Iterator[FakeForge]:
    forge = FakeForge()
    stop = serve(forge)
    yield forge
    stop()


@pytest.fixture(params=["GitHub", "GitLab"])
def job(request: pytest.FixtureRequest, forge: FakeForge) -> Mapping[str, str]:
    """The environment variables of a job on each forge."""
    return github_job(forge) if request.param == "GitHub" else gitlab_job(forge)


def github_job(forge: FakeForge) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": forge.url,
        "GITHUB_GRAPHQL_URL": f"{forge.url}/graphql",
        "GITHUB_REPOSITORY": "org/cluster",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_TOKEN": TOKEN,
    }


def gitlab_job(forge: FakeForge) -> dict[str, str]:
    return {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "5",
        "CI_MERGE_REQUEST_IID": "12",
        "GITLAB_TOKEN": TOKEN,
        "CI_JOB_TOKEN": TOKEN,
    }


def run(
    command: str, *arguments: str | Path, job: Mapping[str, str], report: str = "", checkout: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), *arguments],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **job},
        input=report,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A Git repository with one commit of the empty tree."""
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for command in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "--message=empty")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def publish(command: str, *arguments: str, job: Mapping[str, str], report: str) -> str:
    done = run(f"operations.forge {command}", *arguments, job=job, report=report)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def expect_error(
    command: str, *arguments: str | Path, job: Mapping[str, str], report: str = DEV, checkout: Path = PROJECT
) -> str:
    done = run(command, *arguments, job=job, report=report, checkout=checkout)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


# Comments


def test_each_stack_has_one_comment_among_350(forge: FakeForge, job: Mapping[str, str]) -> None:
    for number in range(350):
        forge.add_comment(f"comment {number}", OTHER_USER)
        if number == 320:  # far beyond the first page
            forge.add_comment(DEV, BOT)

    assert publish("publish-comment", job=job, report=DEV + "again") == "updated the comment"
    assert publish("publish-comment", job=job, report=PROD) == "added a comment"
    assert publish("publish-comment", job=job, report=PROD + "again") == "updated the comment"
    assert forge.list_comments_of(BOT) == [DEV + "again", PROD + "again"]
    assert len(forge.list_comments_of(OTHER_USER)) == 350
    assert "page=4" in "".join(forge.requests)


def test_comment_of_another_user_with_the_marker_is_not_changed(
    forge: FakeForge, job: Mapping[str, str]
) -> None:
    forge.add_comment(DEV + "written by another user", OTHER_USER)
    forge.add_comment(f"Quote:\n{DEV}", BOT)  # the bot's, but the marker is not on the first line
    assert publish("publish-comment", job=job, report=DEV) == "added a comment"
    assert publish("publish-comment", job=job, report=DEV + "again") == "updated the comment"
    assert forge.list_comments_of(OTHER_USER) == [DEV + "written by another user"]
    assert forge.list_comments_of(BOT) == [f"Quote:\n{DEV}", DEV + "again"]


def test_comment_with_changed_line_endings_is_found(forge: FakeForge, job: Mapping[str, str]) -> None:
    forge.add_comment(DEV.replace("\n", "\r\n"), BOT)
    assert publish("publish-comment", job=job, report=DEV) == "updated the comment"


@pytest.mark.parametrize("request_line", ["GET /repos", "POST /repos"])
def test_failed_request_is_retried_without_a_duplicate_comment(forge: FakeForge, request_line: str) -> None:
    # GitHub may answer 502 to a POST that took effect.
    forge.failures.append((request_line, 502))
    publish("publish-comment", job=github_job(forge), report=DEV)
    assert forge.list_comments_of(BOT) == [DEV]
    assert forge.failures == []


# Issues


def test_each_stack_has_one_issue_that_is_opened_updated_and_closed(
    forge: FakeForge, job: Mapping[str, str]
) -> None:
    arguments = ("publish-issue", "Drift: dev")
    assert "no issue is open" in publish(*arguments, "--resolved", job=job, report=DRIFT)
    assert forge.issues == []
    assert publish(*arguments, job=job, report=DRIFT) == "opened an issue"
    assert publish(*arguments, job=job, report=DRIFT + "more") == "updated the issue"
    assert (
        publish("publish-issue", "Drift: prod", job=job, report=DRIFT.replace("dev", "prod"))
        == "opened an issue"
    )
    assert publish(*arguments, "--resolved", job=job, report=DRIFT + "nothing") == "closed the issue"
    assert [(issue["title"], issue["state"] == "closed") for issue in forge.issues] == [
        ("Drift: dev", True),
        ("Drift: prod", False),
    ]
    # A closed issue is not reopened.
    assert publish(*arguments, job=job, report=DRIFT) == "opened an issue"


# Errors


def test_error_names_its_remedy(forge: FakeForge) -> None:
    github, gitlab = github_job(forge), gitlab_job(forge)
    for job, words in (
        ({**github, "GITHUB_TOKEN": "expired"}, ["401", "Bad credentials", "pull-requests: write"]),
        ({**github, "GITHUB_REPOSITORY": "org/other"}, ["404", "/repos/org/other/issues/12/comments"]),
        ({**github, "GITHUB_REF": "refs/heads/main"}, ["refs/heads/main", "no pull request"]),
        ({**github, "GITHUB_TOKEN": ""}, ["GITHUB_TOKEN is not set"]),
        ({**gitlab, "GITLAB_TOKEN": ""}, ["GITLAB_TOKEN is not set", "project access token"]),
        ({**gitlab, "CI_PROJECT_ID": "6"}, ["404", "project access token"]),
        ({}, ["GITHUB_ACTIONS", "GITLAB_CI"]),
    ):
        error = expect_error("operations.forge publish-comment", job=job)
        assert [word for word in words if word not in error] == [], error
    assert "no marker" in expect_error("operations.forge publish-comment", job=github, report="### `dev`\n")
    assert forge.comments == []


def test_missing_permission_is_not_retried(forge: FakeForge) -> None:
    forge.add_comment(DEV, BOT)
    forge.failures.append(("PATCH", 403))
    assert "pull-requests: write" in expect_error("operations.forge publish-comment", job=github_job(forge))
    assert len([request for request in forge.requests if request.startswith("PATCH")]) == 1


# Plans


def artifact(
    number: int, *, tree: str = TREE, fork: bool = False, expired: bool = False
) -> dict[str, object]:
    run = {"repository_id": 1, "head_repository_id": 2 if fork else 1}
    return {"id": number, "name": f"plan-dev-{tree}", "expired": expired, "workflow_run": run}


def test_newest_plan_of_the_checked_out_tree_is_fetched(forge: FakeForge, checkout: Path) -> None:
    forge.artifacts += [
        artifact(1),
        artifact(3),
        artifact(4, expired=True),
        artifact(5, fork=True),
        artifact(6, tree="0" * 40),
    ]
    assert (
        run("operations.plan fetch", "dev", "plan", job=github_job(forge), checkout=checkout).returncode == 0
    )
    assert (checkout / "plan").read_text() == '{"plan": 3}'
    assert not forge.storage_saw_token  # the storage host is another company's

    forge.packages[f"plan-dev/{TREE}/plan.json"] = b'{"plan": 7}'
    assert (
        run("operations.plan fetch", "dev", "plan", job=gitlab_job(forge), checkout=checkout).returncode == 0
    )
    assert (checkout / "plan").read_text() == '{"plan": 7}'


def test_tree_without_a_plan_is_refused_with_the_remedy(
    forge: FakeForge, job: Mapping[str, str], checkout: Path
) -> None:
    forge.artifacts += [artifact(1, tree="0" * 40), artifact(2, fork=True)]
    forge.packages[f"plan-prod/{TREE}/plan.json"] = b"{}"
    error = expect_error("operations.plan fetch", "dev", "plan", job=job, checkout=checkout)
    assert "stack dev" in error
    assert TREE in error
    assert "Run the preview on this branch by hand" in error
    assert not (checkout / "plan").exists()


# Approvals


def test_deployment_needs_required_reviewers_and_deployment_branches(forge: FakeForge) -> None:
    reviewers = {"type": "required_reviewers", "reviewers": [{"type": "Team"}]}
    main_only = {"protected_branches": False, "custom_branch_policies": True}
    branches = {"type": "branch_policy"}
    for rules, policy, missing in (
        ([], None, "no required reviewers and no deployment branches"),
        ([branches], main_only, "no required reviewers:"),
        ([reviewers], None, "no deployment branches:"),
    ):
        forge.environments["prod"] = {"protection_rules": rules, "deployment_branch_policy": policy}
        assert missing in expect_error("operations.forge require-approval", "prod", job=github_job(forge))
    forge.environments["prod"] = {
        "protection_rules": [reviewers, branches],
        "deployment_branch_policy": main_only,
    }
    assert run("operations.forge require-approval", "prod", job=github_job(forge)).returncode == 0
    assert "actions: read" in expect_error("operations.forge require-approval", "dev", job=github_job(forge))
