"""Fetch the plan that was reviewed for exactly the tree that is checked out, for `make up STACK=… PLAN=…`.

The preview of a pull request keeps its plan under the name of the tree that it looked at. After the merge the same tree
has the same plan; any other has none, and is not deployed.
"""

import argparse
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from operations.forge.api import ForgeError, MissingError, github, gitlab, on_github, patiently


def from_github(stack: str, tree: str) -> bytes | None:
    """The newest of the artifact's name. What the pull request of a fork uploaded does not count: anybody can open one."""
    api = github("{actions: read}")
    kept: list[dict[str, Any]] = [
        artifact
        for page in api.pages(f"/actions/artifacts?name=plan-{stack}-{tree}")
        for artifact in page["artifacts"]
        if not artifact["expired"]
        and artifact["workflow_run"]["head_repository_id"] == artifact["workflow_run"]["repository_id"]
    ]
    if not kept:
        return None
    newest = max(kept, key=lambda artifact: artifact["id"])
    content, _ = api.send("GET", f"{api.url}/actions/artifacts/{newest['id']}/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.namelist()[0])


def from_gitlab(stack: str, tree: str) -> bytes | None:
    api = gitlab("CI_JOB_TOKEN", "JOB-TOKEN", "GitLab gives it to every job")
    try:
        return api.send("GET", f"{api.url}/packages/generic/plan-{stack}/{tree}/plan.json")[0]
    except MissingError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stack")
    parser.add_argument("file", type=Path, help="where the plan is written")
    chosen = parser.parse_args()
    tree = subprocess.run(
        ["git", "rev-parse", "HEAD^{tree}"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    fetch = from_github if on_github() else from_gitlab
    plan = patiently(lambda: fetch(chosen.stack, tree))
    if plan is None:
        raise ForgeError(
            f"no plan of stack {chosen.stack} was reviewed for this tree ({tree}), so nothing is deployed. Either it came"
            " without a pull request, or the branch was behind when it was merged, or the preview failed or is too old."
            " Run the preview on this branch by hand, read what it says, then run this job again"
            " (docs/deployment.md, When there is no plan that fits)."
        )
    chosen.file.write_bytes(plan)


if __name__ == "__main__":
    try:
        main()
    except ForgeError as error:
        sys.exit(f"fetch: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
