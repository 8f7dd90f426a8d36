"""What jobs of GitHub and GitLab publish, and the plan that they fetch, against a forge over real HTTP."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.operations.forge_server import BOT, SOMEBODY, TOKEN, Forge, serve
from tests.project import PROJECT

DEV = "<!-- ant-media-cluster preview: dev -->\n### `dev`: 1 to change\n"
PROD = "<!-- ant-media-cluster preview: prod -->\n### `prod`: nothing changes\n"
DRIFT = "<!-- ant-media-cluster drift: dev -->\n### `dev`: haproxy.cfg differs\n"
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The empty one's name."""


@pytest.fixture
def forge() -> Iterator[Forge]:
    forge = Forge()
    stop = serve(forge)
    yield forge
    stop()


@pytest.fixture(params=["GitHub", "GitLab"])
def job(request: pytest.FixtureRequest, forge: Forge) -> Mapping[str, str]:
    """A job's environment on each of the two."""
    return on_github(forge) if request.param == "GitHub" else on_gitlab(forge)


def on_github(forge: Forge) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": forge.url,
        "GITHUB_GRAPHQL_URL": f"{forge.url}/graphql",
        "GITHUB_REPOSITORY": "org/cluster",
        "GITHUB_REF": "refs/pull/12/merge",
        "GITHUB_TOKEN": TOKEN,
    }


def on_gitlab(forge: Forge) -> dict[str, str]:
    return {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "5",
        "CI_MERGE_REQUEST_IID": "12",
        "GITLAB_TOKEN": TOKEN,
        "CI_JOB_TOKEN": TOKEN,
    }


def run(
    script: str, *arguments: str | Path, job: Mapping[str, str], report: str = "", checkout: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", script, *arguments],
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
    """A commit of the empty tree."""
    as_somebody = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for command in (("init", "-q"), (*as_somebody, "commit", "-q", "--allow-empty", "--message=empty")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def publish(*form: str, job: Mapping[str, str], report: str) -> str:
    done = run("operations.forge.publish_report", *form, job=job, report=report)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(
    script: str, *arguments: str | Path, job: Mapping[str, str], report: str = DEV, checkout: Path = PROJECT
) -> str:
    done = run(script, *arguments, job=job, report=report, checkout=checkout)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


# Comments


def test_each_stack_keeps_one_comment_in_a_thread_of_350(forge: Forge, job: Mapping[str, str]) -> None:
    for number in range(350):
        forge.add_comment(f"comment {number}", SOMEBODY)
        if number == 320:  # far beyond the first page
            forge.add_comment(DEV, BOT)

    assert publish("comment", job=job, report=DEV + "again") == "updated the comment"
    assert publish("comment", job=job, report=PROD) == "added a comment"
    assert publish("comment", job=job, report=PROD + "again") == "updated the comment"
    assert forge.texts(BOT) == [DEV + "again", PROD + "again"]
    assert len(forge.texts(SOMEBODY)) == 350
    assert "page=4" in "".join(forge.requests)


def test_somebody_elses_comment_with_the_marker_is_left_alone(forge: Forge, job: Mapping[str, str]) -> None:
    forge.add_comment(DEV + "not the preview", SOMEBODY)
    forge.add_comment(f"The preview said:\n{DEV}", BOT)  # the bot's own, but something else
    assert publish("comment", job=job, report=DEV) == "added a comment"
    assert publish("comment", job=job, report=DEV + "again") == "updated the comment"
    assert forge.texts(SOMEBODY) == [DEV + "not the preview"]
    assert forge.texts(BOT) == [f"The preview said:\n{DEV}", DEV + "again"]


def test_a_comment_whose_line_ends_the_forge_changed_is_found(forge: Forge, job: Mapping[str, str]) -> None:
    forge.add_comment(DEV.replace("\n", "\r\n"), BOT)
    assert publish("comment", job=job, report=DEV) == "updated the comment"


@pytest.mark.parametrize("request_line", ["GET /repos", "POST /repos"])
def test_a_forge_that_fails_for_a_moment_is_asked_again_and_nothing_is_there_twice(
    forge: Forge, request_line: str
) -> None:
    # GitHub has often done what it answers 502 to.
    forge.failures.append((request_line, 502))
    publish("comment", job=on_github(forge), report=DEV)
    assert forge.texts(BOT) == [DEV]
    assert forge.failures == []


# Issues


def test_one_issue_per_stack_is_opened_updated_and_closed(forge: Forge, job: Mapping[str, str]) -> None:
    say = ("issue", "Drift: dev")
    assert "no issue" in publish(*say, "--resolved", job=job, report=DRIFT)
    assert forge.issues == []
    assert publish(*say, job=job, report=DRIFT) == "opened an issue"
    assert publish(*say, job=job, report=DRIFT + "more") == "updated the issue"
    assert publish("issue", "Drift: prod", job=job, report=DRIFT.replace("dev", "prod")) == "opened an issue"
    assert publish(*say, "--resolved", job=job, report=DRIFT + "nothing") == "closed the issue"
    assert [(issue["title"], issue["state"] == "closed") for issue in forge.issues] == [
        ("Drift: dev", True),
        ("Drift: prod", False),
    ]
    # A closed one is history.
    assert publish(*say, job=job, report=DRIFT) == "opened an issue"


# Refusals


def test_what_is_wrong_is_said_with_what_would_do(forge: Forge) -> None:
    github, gitlab = on_github(forge), on_gitlab(forge)
    for job, words in (
        ({**github, "GITHUB_TOKEN": "expired"}, ["401", "Bad credentials", "pull-requests: write"]),
        ({**github, "GITHUB_REPOSITORY": "org/other"}, ["404", "/repos/org/other/issues/12/comments"]),
        ({**github, "GITHUB_REF": "refs/heads/main"}, ["refs/heads/main", "no pull request"]),
        ({**github, "GITHUB_TOKEN": ""}, ["GITHUB_TOKEN is not set"]),
        ({**gitlab, "GITLAB_TOKEN": ""}, ["GITLAB_TOKEN is not set", "project access token"]),
        ({**gitlab, "CI_PROJECT_ID": "6"}, ["404", "project access token"]),
        ({}, ["GITHUB_ACTIONS", "GITLAB_CI"]),
    ):
        said = refused("operations.forge.publish_report", "comment", job=job)
        assert [word for word in words if word not in said] == [], said
    assert "no marker" in refused(
        "operations.forge.publish_report", "comment", job=github, report="### `dev`\n"
    )
    assert forge.comments == []


def test_a_token_that_may_not_write_is_told_from_a_forge_that_is_down(forge: Forge) -> None:
    forge.add_comment(DEV, BOT)
    forge.failures.append(("PATCH", 403))
    assert "pull-requests: write" in refused(
        "operations.forge.publish_report", "comment", job=on_github(forge)
    )
    assert len([request for request in forge.requests if request.startswith("PATCH")]) == 1


# Plans


def artifact(
    number: int, *, tree: str = TREE, fork: bool = False, expired: bool = False
) -> dict[str, object]:
    run = {"repository_id": 1, "head_repository_id": 2 if fork else 1}
    return {"id": number, "name": f"plan-dev-{tree}", "expired": expired, "workflow_run": run}


def test_the_newest_plan_of_exactly_this_tree_is_fetched(forge: Forge, checkout: Path) -> None:
    forge.artifacts += [
        artifact(1),
        artifact(3),
        artifact(4, expired=True),
        artifact(5, fork=True),
        artifact(6, tree="0" * 40),
    ]
    assert (
        run("operations.plan.fetch", "dev", "plan", job=on_github(forge), checkout=checkout).returncode == 0
    )
    assert (checkout / "plan").read_text() == '{"plan": 3}'
    assert not forge.storage_saw_token  # where an artifact lies is another company's

    forge.packages[f"plan-dev/{TREE}/plan.json"] = b'{"plan": 7}'
    assert (
        run("operations.plan.fetch", "dev", "plan", job=on_gitlab(forge), checkout=checkout).returncode == 0
    )
    assert (checkout / "plan").read_text() == '{"plan": 7}'


def test_a_tree_that_nobody_reviewed_has_no_plan_and_the_way_out_is_said(
    forge: Forge, job: Mapping[str, str], checkout: Path
) -> None:
    forge.artifacts += [artifact(1, tree="0" * 40), artifact(2, fork=True)]
    forge.packages[f"plan-prod/{TREE}/plan.json"] = b"{}"
    said = refused("operations.plan.fetch", "dev", "plan", job=job, checkout=checkout)
    assert "stack dev" in said
    assert TREE in said
    assert "Run the preview on this branch by hand" in said
    assert not (checkout / "plan").exists()


# Approvals


def test_an_environment_is_deployed_to_only_if_somebody_has_to_approve_it(forge: Forge) -> None:
    reviewers = {"type": "required_reviewers", "reviewers": [{"type": "Team"}]}
    main_only = {"protected_branches": False, "custom_branch_policies": True}
    branches = {"type": "branch_policy"}
    for rules, policy, lacks in (
        ([], None, "no required reviewers and no deployment branches"),
        ([branches], main_only, "no required reviewers,"),
        ([reviewers], None, "no deployment branches,"),
    ):
        forge.environments["prod"] = {"protection_rules": rules, "deployment_branch_policy": policy}
        assert lacks in refused("operations.forge.require_approval", "prod", job=on_github(forge))
    forge.environments["prod"] = {
        "protection_rules": [reviewers, branches],
        "deployment_branch_policy": main_only,
    }
    assert run("operations.forge.require_approval", "prod", job=on_github(forge)).returncode == 0
    assert "actions: read" in refused("operations.forge.require_approval", "dev", job=on_github(forge))
