"""Checks that deployments to a GitHub environment need an approval.

GitHub creates a missing environment without any protection. Every merge would then be deployed without an approval.
"""

from operations.forge.api import ForgeError, github_repository, retry_while_unavailable


def require_approval(environment: str) -> None:
    """Raises `ForgeError` unless the environment has required reviewers and limits the branches that may deploy to it."""
    if missing := _find_missing_protection(environment):
        raise ForgeError(
            f"the environment {environment} has no {' and no '.join(missing)}: nothing was deployed; add both in the"
            " repository's settings (docs/deployment.md, Setting it up, 4)"
        )


def _find_missing_protection(environment: str) -> list[str]:
    api = github_repository("{actions: read}")
    settings = retry_while_unavailable(lambda: api.request("GET", f"/environments/{environment}"))
    rules = [rule["type"] for rule in settings["protection_rules"]]
    return [
        *(["required reviewers"] if "required_reviewers" not in rules else []),
        *(["deployment branches"] if not settings["deployment_branch_policy"] else []),
    ]
