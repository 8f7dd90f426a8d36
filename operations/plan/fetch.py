"""Fetches the plan that the preview saved for the Git tree that is checked out.

A preview saves its plan under the name of the previewed tree. A merge of that tree has the same name, so it gets this
plan. For any other tree no plan exists.
"""

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from operations.forge.api import (
    ForgeError,
    NotFoundError,
    github_repository,
    gitlab_project,
    is_github_job,
    retry_while_unavailable,
)


def fetch_plan(stack: str, file: Path) -> None:
    """Writes the plan to a file. Raises `ForgeError` when no plan exists."""
    tree = subprocess.run(
        ["git", "rev-parse", "HEAD^{tree}"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    fetch = _fetch_from_github if is_github_job() else _fetch_from_gitlab
    plan = retry_while_unavailable(lambda: fetch(stack, tree))
    if plan is None:
        raise ForgeError(
            f"no reviewed plan of stack {stack} exists for this tree ({tree}): nothing was deployed. The commit had no pull"
            " request, or the branch was out of date when it was merged, or the preview failed or its plan has expired."
            " Run the preview on this branch by hand, review it, then run this job again"
            " (docs/deployment.md, When the plan is missing or stale)."
        )
    file.write_bytes(plan)


def _fetch_from_github(stack: str, tree: str) -> bytes | None:
    """Downloads the newest artifact of this name, except those of forks: anyone can upload one from a fork."""
    api = github_repository("{actions: read}")
    artifacts: list[dict[str, Any]] = [
        artifact
        for page in api.list_pages(f"/actions/artifacts?name=plan-{stack}-{tree}")
        for artifact in page["artifacts"]
        if not artifact["expired"]
        and artifact["workflow_run"]["head_repository_id"] == artifact["workflow_run"]["repository_id"]
    ]
    if not artifacts:
        return None
    newest = max(artifacts, key=lambda artifact: artifact["id"])
    content, _ = api.send("GET", f"{api.url}/actions/artifacts/{newest['id']}/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0])


def _fetch_from_gitlab(stack: str, tree: str) -> bytes | None:
    api = gitlab_project("CI_JOB_TOKEN", "JOB-TOKEN", "GitLab sets it in every job")
    try:
        return api.send("GET", f"{api.url}/packages/generic/plan-{stack}/{tree}/plan.json")[0]
    except NotFoundError:
        return None
